"""What a call takes on a device, for the programs beside this one."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter

import torch

# more than any card's caches hold, and work enough that the host has queued the rest meanwhile
FLUSH_BYTES = 2**29


def median_ms(call: Callable[[int], object], repeats: int, device: torch.device) -> float:
    """The median time of a call.

    On a GPU that of `repeats` replays of the recorded call, each between two events and after a
    write of more than the caches hold: neither Python nor what a cache still has is timed. On a
    CPU, where the programs are tried out, of calls.

    Args:
        call: queues the work; receives the handle of the stream, which is also torch's current one.
        repeats: how often it counts.
        device: where it works.
    """
    if device.type == "cpu":
        times = []
        for _ in range(repeats):
            start = perf_counter()
            call(0)
            times.append((perf_counter() - start) * 1e3)
        return statistics.median(times)
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    flushed = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=device)
    with torch.cuda.stream(stream):
        for _ in range(3):
            call(stream.cuda_stream)
    with torch.cuda.graph(graph, stream=stream):
        call(stream.cuda_stream)
    pairs = []
    with torch.cuda.stream(stream):
        for _ in range(repeats):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flushed.zero_()
            begin.record(stream)
            graph.replay()
            end.record(stream)
            pairs.append((begin, end))
    stream.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in pairs)
