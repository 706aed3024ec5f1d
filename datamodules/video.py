"""The data module of every run: one source, random training clips, fixed other ones."""

import logging
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from datamodules.options import SMALLEST_CROP, DataOptions
from datamodules.paths import expand_root
from datamodules.sources.index import forget_errors
from datamodules.sources.opening import OpenSources, check_source, open_sources
from datamodules.sources.samples import (
    FIXED,
    Batch,
    GlobalBatches,
    Sample,
    TrainingClips,
    collate,
    leave_signals_to_parent,
    sample_seed,
    to_tensor,
)
from datamodules.sources.source import ClipError

logger = logging.getLogger(__name__)

REPORTED_FAILURES = 20
NAMED_UNFIT = 3
NO_CLIP: Batch = {
    "clip": torch.empty(0, 1, 3, 1, 1, dtype=torch.uint8),
    "index": torch.empty(0, dtype=torch.int64),
    "name": [],
}
"""The validation batch of a rank that has no clip."""


class _Stage(NamedTuple):
    number: int
    frames: int
    crop: int
    batch_size: int
    steps_per_batch: int
    name: str


_Key: TypeAlias = tuple[str | int | None, ...]


def _key(options: DataOptions) -> _Key:
    """Return what decides which videos are opened, and which of them validate."""
    validation = options.validation if options.val_clips else None
    given = options.source, options.root, options.list_file
    return *given, *(validation or (None,)), options.val_clips, options.fingerprint


class VideoDataModule(LightningDataModule):
    """Clips for training, validation and test from one source.

    Training batches are ``{"clip": (B, T, 3, H, W) float32 RGB in [0, 1], "index":
    (B,) int64}``; ``index`` seeds what a codec draws for a sample and is >= 0.
    Validation and test batches hold one clip and ``"name": list[str]`` besides. Which
    samples an optimizer step holds depends on ``seed``, the stage and the step alone.
    It asks for a Trainer with ``use_distributed_sampler=False``.

    Args:
        options: Of the whole run; a stage may change some.
    """

    def __init__(self, options: DataOptions) -> None:
        super().__init__()
        self._given = self._options = options
        self._stage: _Stage | None = None
        self._started: dict[int, tuple[DataOptions, _Stage]] = {}
        self._opened: dict[_Key, OpenSources] = {}
        self._fitting: dict[tuple[_Key, int, int], tuple[list[int], str]] = {}
        self._forgotten: set[str] = set()
        self._described: set[DataOptions] = set()
        self._val_samples: tuple[Any, list[Sample]] | None = None
        self._failures: dict[str, str] = {}

    def start_stage(
        self,
        stage: int,
        frames: int,
        crop: int,
        batch_size: int,
        steps_per_batch: int = 1,
        name: str = "",
        **changes: Any,
    ) -> None:
        """Set what the next fit trains on.

        Args:
            stage: Number of the schedule's row; part of the random stream.
            frames: Length of a training clip.
            crop: Side of its square crop in pixels.
            batch_size: Clips per optimizer step, over all devices and accumulated
                micro-batches.
            steps_per_batch: Optimizer steps that are made with each batch.
            name: Of the row, for messages; by default its number.
            changes: Options of the data that differ in this stage; another ``source``
                or ``root`` changes validation too, unless that has its own.

        Raises:
            ValueError: A change has an unknown name or a value that it cannot have, the
                crop is too small, or a source does not exist or not under its root
                (what the root holds is not looked at).
        """
        if crop < SMALLEST_CROP:
            raise ValueError(
                f"crop is {crop}, it must be at least {SMALLEST_CROP} (`crop` of the "
                "stage's row, or --shrink.crop)"
            )
        options = self._given.changed(changes)
        # Now, and not when the stages before this one have cost a day.
        check_source(options.source, options.root, options.list_file)
        if options.validation is not None and options.val_clips:
            check_source(*options.validation)
        self._options = options
        self._stage = _Stage(
            stage, frames, crop, batch_size, steps_per_batch, name or str(stage)
        )
        self._started[stage] = options, self._stage

    def prepare_data(self) -> None:
        """Open the sources on one process, which writes the index of a new tree.

        Raises:
            ValueError: See :meth:`check_stages`.
        """
        self.check_stages()
        self._open_anew(self._options)
        if self._options not in self._described:
            self._described.add(self._options)
            logger.info("data: %s", self.describe())
        if self._stage is not None:
            _, left_out = self._train_items(self._options, self._stage)
            if left_out:
                logger.warning("stage %r: %s", self._stage.name, left_out)

    def check_stages(self) -> None:
        """Open the data of every stage that was started, on one process.

        Raises:
            ValueError: A source holds no video that can be used, or none that is large
                and long enough for a stage's clips, as far as is known unopened.
        """
        for options, stage in self._started.values():
            try:
                self._open_anew(options)
                self._train_items(options, stage)
            except ValueError as error:
                raise ValueError(f"stage {stage.name!r}: {error}") from error

    def _open_anew(self, options: DataOptions) -> None:
        """Open sources; what was broken when their index was made is looked at again.

        Once for each tree: later stages read the same list.
        """
        for root in (options.root, options.val_root):
            if root is not None and root not in self._forgotten:
                self._forgotten.add(root)
                forget_errors(Path(expand_root(root)))
        self._open(options)

    def _train_items(
        self, options: DataOptions, stage: _Stage
    ) -> tuple[list[int], str]:
        """Return the videos that can give a stage's clips, and say which cannot.

        They follow from the index alone, so that every rank and every resumed run
        draws from the same ones.
        """
        key = _key(options), stage.frames, stage.crop
        if key not in self._fitting:
            opened = self._open(options)
            unfit = {
                item: why
                for item in opened.train_items
                if (why := opened.train.unfit(item, stage.frames, stage.crop))
            }
            named = [
                f"{opened.train.label(item)}: {why}"
                for item, why in islice(unfit.items(), NAMED_UNFIT)
            ]
            more = ", ..." if len(unfit) > len(named) else ""
            left_out = (
                f"{len(unfit)} of {len(opened.train_items)} videos cannot give clips "
                f"of {stage.frames} frames, {stage.crop}x{stage.crop}, and are left "
                f"out ({'; '.join(named)}{more})"
            )
            items = [item for item in opened.train_items if item not in unfit]
            self._fitting[key] = items, left_out if unfit else ""
        items, left_out = self._fitting[key]
        if not items:
            raise ValueError(
                f"no video is left to train on: {left_out}. Choose other videos, or a "
                "smaller crop (`crop` of the stage's row, or --shrink.crop)"
            )
        return items, left_out

    def setup(self, stage: str | None = None) -> None:
        """Open the sources; the index that ``prepare_data`` wrote is read here."""
        self._open()

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return random clips without end, from the trainer's step on.

        Raises:
            ValueError: No stage was started.
        """
        trainer = self.trainer
        if self._stage is None or trainer is None:
            raise ValueError("call start_stage() and let a Trainer fit before training")
        opened, options, stage = self._open(), self._options, self._stage
        stride = options.stride or opened.train.default_stride
        items, _ = self._train_items(options, stage)
        clips = TrainingClips(
            opened.train,
            items,
            seed=options.seed,
            stage=stage.number,
            frames=stage.frames,
            crop=stage.crop,
            stride=stride,
            flip=options.flip,
        )
        batches = GlobalBatches(
            lambda: trainer.global_step // stage.steps_per_batch,
            stage.batch_size,
            trainer.world_size,
            trainer.global_rank,
            trainer.accumulate_grad_batches,
        )
        return DataLoader(
            clips,
            batch_sampler=batches,
            num_workers=options.workers,
            worker_init_fn=leave_signals_to_parent,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            # Its own, or every start would draw from the global one.
            generator=torch.Generator(),
        )

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return this rank's share of the fixed clips, one per batch.

        With more ranks than clips, some get one batch without a clip: Lightning would
        keep a rank without batches out of the collectives at a validation's end.

        Raises:
            ClipError: None of the rank's clips can be read.
        """
        samples = self._fixed_samples()
        if not samples and self._open().val_items:
            return DataLoader([NO_CLIP], batch_size=None)  # type: ignore[arg-type]
        return DataLoader(
            samples,  # type: ignore[arg-type]
            batch_size=1,
            collate_fn=collate,
            generator=torch.Generator(),
        )

    def test_dataloader(self) -> DataLoader[Sample]:
        """Return what ``val_dataloader`` does: ``Trainer.test`` measures these clips.

        Raises:
            ValueError: There are no validation clips, or Lightning would share them out
                once more.
            ClipError: None of the rank's clips can be read.
        """
        if not self._options.val_clips:
            raise ValueError(
                "val_clips is 0, so there is nothing to test: give DataOptions a number"
            )
        trainer = self.trainer
        if trainer is not None and trainer.world_size > 1:
            # Each rank would measure a share of its share, and say nothing.
            if trainer._accelerator_connector.use_distributed_sampler:
                raise ValueError(
                    f"the {trainer.world_size} ranks have clips of their own already: "
                    "make the Trainer with use_distributed_sampler=False"
                )
        return self.val_dataloader()

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Move a batch but for ``index``: a codec's draws read it on the CPU."""
        rest = {name: own for name, own in batch.items() if name != "index"}
        moved = super().transfer_batch_to_device(rest, device, dataloader_idx)
        return {**moved, "index": batch["index"]}

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Turn the clip into floats in [0, 1] on the device, and note failures."""
        self._failures.update(batch.pop("failures", ()))
        if batch["clip"].dtype == torch.uint8:
            batch["clip"] = batch["clip"].float().div_(255)
        return batch

    def failures(self) -> dict[str, str]:
        """Return the videos that this rank skipped, so far: label -> reason."""
        return dict(self._failures)

    def failure_report(self) -> str:
        """Say which videos were skipped, by name, if any; call it on every rank."""
        failures = self.failures()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            ranks: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(ranks, failures)
            failures = {name: why for rank in ranks for name, why in rank.items()}
        if not failures:
            return ""
        lines = [f"{name}: {why}" for name, why in sorted(failures.items())]
        more = len(lines) - REPORTED_FAILURES
        lines[REPORTED_FAILURES:] = [f"and {more} more"] if more > 0 else []
        noun = "video was" if len(failures) == 1 else "videos were"
        return "\n  ".join([f"{len(failures)} {noun} skipped:", *lines])

    def describe(self) -> str:
        """Say in one line what is trained on and validated with."""
        opened = self._open()
        stride = self._options.stride or opened.train.default_stride
        some = f", 1 frame in {stride}" if stride > 1 else ""
        other, val_stride = "", self._val_stride(opened)
        if opened.val_items and val_stride != stride:
            other = f", 1 frame in {val_stride}" if val_stride > 1 else ", every frame"
        return f"{opened.train.describe()}{some}; {opened.note}{other}"

    def _val_stride(self, opened: OpenSources) -> int:
        options = self._options
        return options.val_stride or options.stride or opened.val.default_stride

    def _open(self, options: DataOptions | None = None) -> OpenSources:
        options = options or self._options
        key = _key(options)
        if key not in self._opened:
            opened = open_sources(options)
            self._failures.update({**opened.val.skipped, **opened.train.skipped})
            self._opened[key] = opened
        return self._opened[key]

    def _fixed_samples(self) -> list[Sample]:
        opened, options = self._open(), self._options
        rank = self.trainer.global_rank if self.trainer else 0
        world_size = self.trainer.world_size if self.trainer else 1
        key = (options, rank, world_size)
        if self._val_samples is not None and self._val_samples[0] == key:
            return self._val_samples[1]
        stride = self._val_stride(opened)
        share = range(len(opened.val_items))[rank::world_size]
        samples: list[Sample] = []
        failures: dict[str, str] = {}
        for place in share:
            item = opened.val_items[place]
            name = opened.val.label(item)
            try:
                clip = opened.val.read(
                    item, None, options.val_frames, options.val_crop, stride
                )
            except ClipError as error:
                failures[name] = str(error)
                logger.warning("validation clip %s is left out: %s", name, error)
                continue
            index = sample_seed(options.seed, 0, FIXED, place)
            samples.append({"clip": to_tensor(clip), "index": index, "name": name})
        self._failures.update(failures)
        if share and not samples:
            reasons = "; ".join(f"{name}: {why}" for name, why in failures.items())
            raise ClipError(
                f"none of the {len(share)} validation clips can be read: {reasons}"
            )
        self._val_samples = (key, samples)
        return samples
