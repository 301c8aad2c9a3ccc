"""What a call takes on a GPU, for the programs beside this one."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

# more than any card's caches hold, and work enough that the host has queued the rest meanwhile
FLUSH_BYTES = 2**29


def replay_ms(call: Callable[[int], object], repeats: int) -> float:
    """Median of `repeats` replays of a recorded call, each between two events and after a write
    of more than the caches hold: neither Python nor what a cache still has is timed.

    Args:
        call: queues the work; receives the handle of the stream, which is also torch's current one.
        repeats: how often it is replayed.
    """
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    flushed = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
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
