"""Which clip sample k of a run is, and which samples a batch holds.

Sample k of a stage is a function of the seed, the stage's number and k: not of
workers, ranks, micro-batches or how often the run was resumed.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from datamodules.sources.source import ClipError, ClipSource, Rng

Sample: TypeAlias = dict[str, Any]
Batch: TypeAlias = dict[str, Any]

# Independent streams of random numbers under one seed.
WINDOW, ORDER, INDEX, FIXED = range(4)
GIVE_UP_AFTER = 20


def sequence(seed: int, stage: int, stream: int, number: int) -> np.random.SeedSequence:
    """Return what seeds number ``number`` of a stream; all arguments >= 0."""
    return np.random.SeedSequence([seed, stage, stream, number])


def generator(seed: int, stage: int, stream: int, number: int) -> Rng:
    """Return the generator of number ``number`` of a stream."""
    return np.random.Generator(np.random.Philox(sequence(seed, stage, stream, number)))


def sample_seed(seed: int, stage: int, stream: int, number: int) -> int:
    """Return the seed, 0 .. 2**63 - 1, of draws that a codec makes for a sample."""
    state = sequence(seed, stage, stream, number).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


class TrainingClips(Dataset[Sample]):
    """Random clips by global sample number; every video once per epoch.

    Args:
        source: Where the clips come from.
        items: The videos of ``source`` to train on.
        seed: Of the run.
        stage: Number of the schedule's row.
        frames: Length of a clip.
        crop: Side of its square crop in pixels.
        stride: Distance between its frames.
        flip: Mirror every second clip, drawn at random, left to right.
    """

    def __init__(
        self,
        source: ClipSource,
        items: Sequence[int],
        *,
        seed: int,
        stage: int,
        frames: int,
        crop: int,
        stride: int,
        flip: bool,
    ) -> None:
        self._source = source
        self._items = items
        self._stream = (seed, stage)
        self._shape = (frames, crop, stride)
        self._flip = flip
        self._epoch = -1
        self._order: Any = None

    def __getitem__(self, number: int) -> Sample:
        """Return sample ``number``, from 0 without end.

        A video that cannot give the clip is replaced by another, drawn from the
        sample's own generator.

        Returns:
            ``clip``: (T, 3, H, W), uint8. ``index``: the seed of the codec's draws.
            ``failures``: pairs of label and reason.

        Raises:
            ClipError: Twenty videos in a row could not.
        """
        rng = generator(*self._stream, WINDOW, number)
        item = self._item(number)
        failures: list[tuple[str, str]] = []
        while True:
            try:
                clip = self._source.read(item, rng, *self._shape)
                break
            except ClipError as error:
                failures.append((self._source.label(item), str(error)))
            if len(failures) == GIVE_UP_AFTER:
                last = "; ".join(": ".join(failure) for failure in failures[-3:])
                frames, crop, _ = self._shape
                raise ClipError(
                    f"{GIVE_UP_AFTER} videos in a row gave no clip of {frames} frames, "
                    f"{crop}x{crop}; the last: {last}. Choose a smaller crop or other "
                    "videos"
                )
            item = self._items[int(rng.integers(len(self._items)))]
        if self._flip and rng.random() < 0.5:
            clip = clip[:, :, ::-1]
        return {
            "clip": to_tensor(clip),
            "index": sample_seed(*self._stream, INDEX, number),
            "failures": failures,
        }

    def _item(self, number: int) -> int:
        epoch, place = divmod(number, len(self._items))
        if epoch != self._epoch:
            rng = generator(*self._stream, ORDER, epoch)
            self._order, self._epoch = rng.permutation(len(self._items)), epoch
        return self._items[int(self._order[place])]


def to_tensor(clip: Any) -> torch.Tensor:
    """Turn (T, H, W, 3) into a tensor (T, 3, H, W), both uint8."""
    return torch.from_numpy(np.ascontiguousarray(clip.transpose(0, 3, 1, 2)))


def collate(samples: list[Sample]) -> Batch:
    """Put samples into a batch: tensors stacked, indices int64, lists joined."""
    batch: Batch = {
        "clip": torch.stack([sample["clip"] for sample in samples]),
        "index": torch.tensor([sample["index"] for sample in samples]),
    }
    if "failures" in samples[0]:
        batch["failures"] = [pair for sample in samples for pair in sample["failures"]]
    if "name" in samples[0]:
        batch["name"] = [sample["name"] for sample in samples]
    return batch


def leave_signals_to_parent(worker: int) -> None:
    """Keep a loader process alive when a scheduler signals the whole job.

    The parent saves and stops at its own pace, and its loaders end with it; one that
    died first would end the run with an error instead.
    """
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)


class GlobalBatches(Sampler[list[int]]):
    """The global sample numbers of this rank's micro-batches, without end.

    Micro-batch m of rank r of W holds the b samples from (m W + r) b on, so an
    optimizer step has the same samples for every W and every accumulation. It begins
    where the trainer is when iteration starts, which after a resume is in the middle.

    Args:
        steps_done: Says how many optimizer steps are done.
        batch_size: Samples per optimizer step over all ranks, which share them evenly.
        world_size: Ranks.
        rank: This one.
        accumulate: Micro-batches per optimizer step.
    """

    def __init__(
        self,
        steps_done: Callable[[], int],
        batch_size: int,
        world_size: int = 1,
        rank: int = 0,
        accumulate: int = 1,
    ) -> None:
        self._steps_done = steps_done
        self._share = batch_size // (world_size * accumulate)
        self._world_size, self._rank = world_size, rank
        self._accumulate = accumulate

    def __iter__(self) -> Iterator[list[int]]:
        """Yield lists of global sample numbers."""
        micro = self._steps_done() * self._accumulate
        while True:
            first = (micro * self._world_size + self._rank) * self._share
            yield list(range(first, first + self._share))
            micro += 1
