"""How kernels are timed on a GPU, with stand-ins for torch's streams, events and graphs."""

import importlib.util
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_timing.py"


def test_replays_are_timed_behind_a_write_of_more_than_the_caches_hold(monkeypatch) -> None:
    """Python's calls are recorded once; between two events there is a replay and nothing else."""
    spec = importlib.util.spec_from_file_location("gpu_timing", PATH)
    timing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(timing)
    queued = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream) -> None:
            queued.append(self)

        def elapsed_time(self, end) -> float:
            return float(sum(isinstance(one, str) for one in queued[: queued.index(end)]))

    class Buffer:
        def __init__(self, size: int, dtype: torch.dtype, device: str) -> None:
            assert (dtype, device) == (torch.uint8, torch.device("cuda"))
            self.size = size

        def zero_(self) -> None:
            queued.append(f"write {self.size}")

    cuda = SimpleNamespace(
        Stream=lambda: SimpleNamespace(cuda_stream=3, synchronize=lambda: queued.append("wait")),
        CUDAGraph=lambda: SimpleNamespace(replay=lambda: queued.append("replay")),
        Event=Event,
        stream=nullcontext,
        graph=lambda graph, stream: nullcontext(),
    )
    monkeypatch.setattr(timing.torch, "cuda", cuda)
    monkeypatch.setattr(timing.torch, "empty", Buffer)
    device = torch.device("cuda")
    timing.median_ms(lambda stream: queued.append(f"call {stream}"), 3, device)
    last_call = max(index for index, one in enumerate(queued) if one == "call 3")
    timed = queued[last_call + 1 :]
    assert [one if isinstance(one, str) else "event" for one in timed] == [
        *(["write 536870912", "event", "replay", "event"] * 3),
        "wait",
    ]
