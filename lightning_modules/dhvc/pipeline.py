"""DHVC on several workers at once: scales of consecutive frames overlap.

::

    worker 0   encoder | 1 | 2 | 3 | 4 | tail | encoder | 1 | 2 | 3 | 4 | tail ...
                         :   :   :   :
    worker 1   encoder ... | 1 | 2 | 3 | 4 | tail ...

A scale needs the coarser one of its frame and the same one of the frame before, which
hands on what it has of older frames. The bottom-up encoder, the tail and bytes wait for
nobody. A frame takes as long as ever, but the next ones do not wait for its end: at
best, one is done every ``max(total / workers, slowest scale)``.

Packets and frames are those of one worker, bit by bit. That needs one kind of device,
and as many torch threads for each worker as for the whole codec otherwise; half
precision is the codec's own dtype.

Workers are threads: torch and the entropy coder release Python's lock while they
compute, and features change hands without a copy.

Source: arXiv 2410.02598, section 6.2.2, Fig. 8 and supplement, "Parallel Acceleration".
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from copy import deepcopy
from itertools import cycle
from typing import TypeVar

import torch

from lightning_modules.dhvc.frame_coder import FrameCoder, Work
from lightning_modules.dhvc.walk import State
from lightning_modules.dhvc.workers import Workers
from lightning_modules.overlap import begun_ahead

R = TypeVar("R")


class PipelinedDHVC:
    """Codes and decodes as one frame coder does, on several workers.

    Up to :attr:`ahead` frames are taken before the first of them is given back.

    Args:
        coder: Without an auxiliary path, in eval mode. Devices other than its own get
            a copy of its network, as it is now.
        devices: One for each worker, all of one kind; frame t goes to worker t modulo
            their number. On a CPU each worker uses ``torch.get_num_threads()`` threads:
            set them to the number of cores over that of workers, or fewer.

    Raises:
        ValueError: There are no devices, or the network has an auxiliary path.
    """

    def __init__(self, coder: FrameCoder, devices: Sequence[torch.device]) -> None:
        if coder.options.auxiliary:
            raise ValueError(
                "frames cannot overlap: with an auxiliary path every scale needs the "
                "whole previous frame; use a model without it (auxiliary: false)"
            )
        if not devices:
            raise ValueError("a pipeline needs at least one device: got none")
        self.coder = coder
        self.device = coder.network.like.device
        self.devices = list(devices)
        copies = {self.device: coder}
        for device in devices:
            if device not in copies:
                network = deepcopy(coder.network).to(device)
                copies[device] = FrameCoder(
                    network, coder.rate_knob, coder.tables, self.device
                )
        self.coders = [copies[device] for device in devices]
        self.ahead = len(devices) + coder.options.reference_frames

    def run(self, frames: Iterator[Work[R]]) -> Iterator[R]:
        """Do the work of frames and give the results in order.

        A frame is asked for up to :attr:`ahead` frames before its result comes out.
        """
        turns = cycle(self.coders)
        with Workers(self.devices) as workers:

            def begin(work: Work[R]) -> "Future[tuple[R, State]]":
                coder = next(turns)
                return workers.submit(work.steps(coder, coder.start), work.first)

            for future in begun_ahead(frames, begin, self.ahead):
                yield future.result()[0]


def spread(device: torch.device, workers: int) -> list[torch.device]:
    """Return a device for each worker: this one, or all GPUs in turn if it is one."""
    if device.type != "cuda":
        return [device] * workers
    first, count = device.index or 0, torch.cuda.device_count()
    return [torch.device("cuda", (first + i) % count) for i in range(workers)]
