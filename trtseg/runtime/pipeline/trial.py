"""Networks that do not do what their manifest says are found out when they are loaded."""

from __future__ import annotations

import numpy as np

from trtseg.bundle import Manifest
from trtseg.errors import EngineError
from trtseg.runtime.engine import Engine, Engines, HostMemory


def check_networks(manifest: Manifest, engines: Engines) -> None:
    """Compare the networks, whose inputs and outputs have the agreed names, with the manifest.

    Their declared shapes and layouts are looked at everywhere. In host memory each network runs
    once besides, on the smallest image that is twice as wide as high: what a click would do comes
    out here.

    Raises:
        EngineError: a shape or layout is not as agreed, or what is computed is not finite or no
            probability.
    """
    batch, channels, candidates = (1, None), manifest.channels, manifest.candidates
    wanted: tuple[tuple[int | None, ...], ...]
    guidance = manifest.guidance.channels
    maps = {"guidance": guidance, "masks": candidates, "image": 3, "x": channels}
    maps.update((f"map_{index}", one.channels) for index, one in enumerate(manifest.maps))
    for role in ("encoder", "segment", "select"):
        engine: Engine | None = getattr(engines, role)
        if engine is None:
            continue
        for spec in (*engine.inputs, *engine.outputs):
            wanted = (batch, (candidates, None))
            if spec.name != "scores":
                width = channels if role == "encoder" else None
                agreed = maps.get(spec.name, width)
                # None: whatever the networks agree on among themselves
                wanted = (batch, () if agreed is None else (agreed, None), (), ())
            fits = len(spec.shape) == len(wanted) and all(
                not allowed or side in allowed
                for side, allowed in zip(spec.shape, wanted, strict=True)
            )
            if not fits:
                shape = [allowed[0] if allowed else "any" for allowed in wanted]
                raise EngineError(
                    f"{role}: {spec.name}: expected {shape}, declared {list(spec.shape)}"
                )
    (x,) = (spec for spec in engines.segment.inputs if spec.name == "x")
    for spec in () if engines.encoder is None else engines.encoder.outputs:
        # one operation reads all levels and writes what becomes x
        if spec.name.startswith("level_") and spec.channels_last != x.channels_last:
            layouts = "C-contiguous", "channels-last"
            raise EngineError(
                f"encoder: {spec.name}: expected {layouts[x.channels_last]}, as segment's x, "
                f"got {layouts[spec.channels_last]}"
            )
    if isinstance(engines.memory, HostMemory):
        _run_all(manifest, engines)


def _run_all(manifest: Manifest, engines: Engines) -> None:
    rng = np.random.default_rng(0)
    size = manifest.multiple_px, 2 * manifest.multiple_px
    grid = size[0] // manifest.base_stride, size[1] // manifest.base_stride
    maps: dict[str, np.ndarray] = {}
    if engines.encoder is not None:
        found = _run("encoder", engines.encoder, {"image": rng.normal(0, 1, (1, 3, *size))})
        for index in range(manifest.levels):
            level = found[f"level_{index}"].shape
            _expect("encoder", f"level_{index}", level, (1, manifest.channels, *level[2:]))
        for index, one in enumerate(manifest.maps):
            maps[f"map_{index}"] = found[f"map_{index}"]
            _expect(
                "encoder", f"map_{index}", maps[f"map_{index}"].shape,
                (1, one.channels, size[0] // one.stride, size[1] // one.stride),
            )  # fmt: skip
    x = rng.normal(0, 1, (1, manifest.channels, *grid))
    found = _run("segment", engines.segment, {"x": x, **maps})
    masks = found["masks"]
    _expect("segment", "masks", masks.shape, (1, manifest.candidates, *grid))
    low, high = float(masks.min()), float(masks.max())
    if not (low >= -1e-2 and high <= 1 + 1e-2):
        raise EngineError(f"segment: masks: expected probabilities, got {low:g} to {high:g}")
    if engines.select is None:
        return
    inputs = {
        "guidance": rng.random((1, manifest.guidance.channels, *grid)),
        "image": rng.normal(0, 1, (1, 3, *grid)),
        **found,
    }
    wanted = {spec.name: inputs[spec.name] for spec in engines.select.inputs}
    scores = _run("select", engines.select, wanted)["scores"]
    _expect("select", "scores", scores.shape, (1, manifest.candidates))


def _run(role: str, engine: Engine, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All outputs of one run.

    Raises:
        EngineError: it cannot run, or gives numbers that are not finite.
    """
    buffers = {s.name: np.ascontiguousarray(inputs[s.name], s.dtype) for s in engine.inputs}
    shapes = engine.output_shapes({name: array.shape for name, array in buffers.items()})
    outputs = {spec.name: np.zeros(shapes[spec.name], spec.dtype) for spec in engine.outputs}
    engine.bind({**buffers, **outputs}).run()
    for name, values in outputs.items():
        if not np.isfinite(values).all():
            raise EngineError(f"{role}: {name}: the values are not finite")
    return outputs


def _expect(role: str, name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if shape != wanted:
        raise EngineError(f"{role}: {name}: expected {list(wanted)}, got {list(shape)}")
