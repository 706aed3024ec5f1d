"""Running a network on several inputs at once, with the bits of one at a time."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def side_by_side(
    jobs: Sequence[Callable[[], Tensor]], device: torch.device
) -> list[Tensor]:
    """Return what each job returns.

    On a GPU each has a stream of its own, so that small layers of one fill what those
    of another leave idle. A CPU has no idle parts: there they take turns.

    Args:
        jobs: Each computes on one input, so that no kernel is chosen by how many there
            are.
        device: Where they compute.
    """
    if len(jobs) < 2 or device.type != "cuda":
        return [job() for job in jobs]
    caller = torch.cuda.current_stream(device)
    streams = [torch.cuda.Stream(device) for _ in jobs]
    outputs = []
    for stream, job in zip(streams, jobs, strict=True):
        stream.wait_stream(caller)
        with torch.cuda.stream(stream):
            outputs.append(job())
    # What the jobs read is still held by their caller here, and may be freed after.
    for stream, output in zip(streams, outputs, strict=True):
        caller.wait_stream(stream)
        output.record_stream(caller)
    return outputs
