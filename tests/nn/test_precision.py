"""bfloat16 only where there are units for it; processors are stand-ins."""

from __future__ import annotations

import logging

import pytest

torch = pytest.importorskip("torch")

from trtseg.nn import precision  # noqa: E402

CPU = torch.device("cpu")
AVX2 = {"architecture": "x86_64", "avx2": True, "fma3": True, "avx512_bf16": False}
SAPPHIRE_RAPIDS = {**AVX2, "avx512_f": True, "avx512_bf16": True, "amx_bf16": True}
GRAVITON = {"architecture": "arm64", "neon": True, "bf16": True}


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [(AVX2, False), (SAPPHIRE_RAPIDS, True), (GRAVITON, True), ({}, False)],
)
def test_the_processor_decides(capabilities, expected):
    assert precision.has_bfloat16(CPU, capabilities) is expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True)])
def test_a_gpu_has_it_from_8_0_on(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert precision.has_bfloat16(torch.device("cuda")) is expected


@pytest.mark.parametrize(("capabilities", "dtype"), [(AVX2, torch.float32),
                                                     (SAPPHIRE_RAPIDS, torch.bfloat16)])
def test_what_is_allowed_is_used_where_it_pays_and_said(
    monkeypatch, caplog, capabilities, dtype
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    precision._choice.cache_clear()
    layer, x = torch.nn.Linear(4, 4), torch.zeros(1, 4)
    with caplog.at_level(logging.INFO, "trtseg.nn"):
        for _ in range(2):
            with precision.autocast(CPU, True):
                assert layer(x).dtype == dtype
    assert [record.message for record in caplog.records] == [
        f"cpu: computing in {str(dtype).removeprefix('torch.')}"
        + (", for it has no units for bfloat16" if dtype == torch.float32 else "")
    ]
    with precision.autocast(CPU, False):
        assert layer(x).dtype == torch.float32
    precision._choice.cache_clear()
