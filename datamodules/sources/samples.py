"""Which clip sample k of a run is, and which samples a batch holds.

Sample k of a stage is a function of the seed, the stage's number and k: not of
workers, ranks, micro-batches or how often the run was resumed.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from itertools import count
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import Dataset

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


@dataclass(eq=False)
class TrainingClips(Dataset[Sample]):
    """Random clips by global sample number; every video once per epoch.

    Attributes:
        source: Where the clips come from.
        items: The videos of ``source`` to train on.
        seed: Of the run.
        stage: Number of the schedule's row.
        frames: Length of a clip.
        crop: Side of its square crop in pixels.
        stride: Distance between its frames.
        flip: Mirror every second clip, drawn at random, left to right.
    """

    source: ClipSource
    items: Sequence[int]
    _: KW_ONLY
    seed: int
    stage: int
    frames: int
    crop: int
    stride: int
    flip: bool
    _epoch: int = field(default=-1, init=False)
    _order: Any = field(default=None, init=False)

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
        rng = generator(self.seed, self.stage, WINDOW, number)
        item = self._item(number)
        failures: list[tuple[str, str]] = []
        while True:
            try:
                clip = self.source.read(item, rng, self.frames, self.crop, self.stride)
                break
            except ClipError as error:
                failures.append((self.source.label(item), str(error)))
            if len(failures) == GIVE_UP_AFTER:
                last = "; ".join(": ".join(failure) for failure in failures[-3:])
                raise ClipError(
                    f"{GIVE_UP_AFTER} videos in a row gave no clip of {self.frames} "
                    f"frames, {self.crop}x{self.crop}; the last: {last}. Choose a "
                    "smaller crop or other videos"
                )
            item = self.items[int(rng.integers(len(self.items)))]
        tensor = to_tensor(clip)
        if self.flip and rng.random() < 0.5:
            for frame in tensor:
                # One after another: a mirrored clip beside it takes twice the memory.
                frame.copy_(frame.flip(-1))
        return {
            "clip": tensor,
            "index": sample_seed(self.seed, self.stage, INDEX, number),
            "failures": failures,
        }

    def _item(self, number: int) -> int:
        epoch, place = divmod(number, len(self.items))
        if epoch != self._epoch:
            rng = generator(self.seed, self.stage, ORDER, epoch)
            self._order, self._epoch = rng.permutation(len(self.items)), epoch
        return self.items[int(self._order[place])]


def to_tensor(clip: Any) -> torch.Tensor:
    """Turn (T, H, W, 3) into a tensor (T, 3, H, W), both uint8.

    It has the array's memory where that lies so and may be written to.
    """
    return torch.from_numpy(np.require(clip.transpose(0, 3, 1, 2), None, ["C", "W"]))


def collate(samples: list[Sample]) -> Batch:
    """Put samples into a batch: tensors stacked, indices int64, lists joined."""
    clips = [sample["clip"] for sample in samples]
    batch: Batch = {
        # One long clip is not copied.
        "clip": torch.stack(clips) if len(clips) > 1 else clips[0][None],
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


@dataclass(frozen=True)
class GlobalBatches:
    """The global sample numbers of this rank's micro-batches, without end.

    Micro-batch m of rank r of W holds the b samples from (m W + r) b on. So a batch has
    the same samples for every W and every accumulation. It begins where the trainer is
    when iteration starts, which after a resume is in the middle.

    Attributes:
        batches_done: Says how many batches are done.
        batch_size: Samples of a batch over all ranks, which share them evenly.
        world_size: Ranks.
        rank: This one.
        accumulate: Micro-batches of a batch.
    """

    batches_done: Callable[[], int]
    batch_size: int
    world_size: int = 1
    rank: int = 0
    accumulate: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        """Yield lists of global sample numbers."""
        share = self.batch_size // (self.world_size * self.accumulate)
        for micro in count(self.batches_done() * self.accumulate):
            first = (micro * self.world_size + self.rank) * share
            yield list(range(first, first + share))
