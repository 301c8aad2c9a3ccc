"""The networks that a runtime runs, one after the other: what each reads, writes and computes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from trtseg.nn.network import LatentDiversity


@dataclass(frozen=True)
class Interface:
    """What a network reads and writes, in order; heights and widths are free."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def interfaces(network: LatentDiversity) -> dict[str, Interface]:
    """Of the networks there are, by role: "encoder", "segment" (f), "select" (g)."""
    config = network.config
    found: dict[str, Interface] = {}
    maps = tuple(f"map_{i}" for i in range(len(config.map_widths)))
    if network.encoder is not None:
        levels = tuple(f"level_{i}" for i in range(network.encoder.levels))
        found["encoder"] = Interface(("image",), levels + maps)
    selects = network.select is not None
    features = ("features",) if selects and "features" in config.select_inputs else ()
    found["segment"] = Interface(("x", *maps), ("masks", *features))
    if selects:
        found["select"] = Interface(config.select_inputs, ("scores",))
    return found


class Part(nn.Module):
    """One of them: a list of its inputs to a tuple of its outputs.

    Its parameters keep the names that they have in the whole network.
    """

    def __init__(self, network: LatentDiversity, role: str) -> None:
        super().__init__()
        setattr(self, role, getattr(network, role))
        self.role, self.outputs = role, len(interfaces(network)[role].outputs)

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        part = getattr(self, self.role)
        if self.role == "encoder":
            return tuple(part(inputs[0]))
        if self.role == "select":
            return (part(inputs),)
        masks, features = part(*inputs)
        # f gives float32 for the sake of its training; g reads them in the graphs' own type
        return (masks.to(inputs[0].dtype), features)[: self.outputs]
