"""The arithmetic that a processor has units for."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

import torch

_log = logging.getLogger("trtseg.nn")

# x86: AVX-512 BF16, AMX; ARM: FEAT_BF16. oneDNN's own answer counts what it emulates.
_UNITS = ("avx512_bf16", "amx_bf16", "bf16")


def has_bfloat16(device: torch.device, capabilities: Mapping[str, Any] | None = None) -> bool:
    """Whether bfloat16 is faster than float32 there: whether it has units of its own.

    Emulated, as on a CPU with AVX2 alone, it is six to eight times slower.

    Args:
        device: a CPU or a GPU.
        capabilities: of the CPU, as `torch.cpu.get_capabilities` gives them; None asks it.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    if capabilities is None:
        # torch before 2.11 does not tell: float32 is never wrong
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(capabilities.get(name)) for name in _UNITS)


@functools.cache
def _choice(device: torch.device) -> torch.dtype:
    pays = has_bfloat16(device)
    _log.info("%s: computing in %s", device,
              "bfloat16" if pays else "float32, for it has no units for bfloat16")
    return torch.bfloat16 if pays else torch.float32


def autocast(device: torch.device | str, bf16: bool) -> torch.autocast:
    """The context in which networks learn.

    Args:
        device: where they do.
        bf16: allow bfloat16; it is used where the device has units for it, and the choice is
            logged once. The weights stay float32.
    """
    device = torch.device(device)
    enabled = bf16 and _choice(device) == torch.bfloat16
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)
