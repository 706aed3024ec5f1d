"""Guards: what goes wrong silently in a long run becomes an error or a warning."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from callbacks.device_counts import NORMS, DeviceCounts, skips_on_device
from callbacks.first_clip import FirstClip, frames_to_look_at
from lightning_modules.base import CodecModule, ValidationResult
from lightning_modules.codec import VideoCodec
from lightning_modules.entropy.symbols import OverflowingError
from lightning_modules.interval_means import IntervalMeans
from lightning_modules.packets import check_finite

COLLAPSED_BPP = 1e-4
COLLAPSED_PSNR = 8.0
"""``val/psnr`` below this, in dB, is no picture."""

PATIENCE = 2
"""Validations of a collapsed codec in a row that are borne."""

SHOWN = 5
"""Names of weights in a message, at most."""

REAL_BITS_TOLERANCE = 0.05
"""Relative difference of real and estimated bits that passes without a warning."""


class DivergedError(RuntimeError):
    """Training has diverged: there is nothing to go on with."""


class StepGuard(Callback):
    """Clip the gradient's norm; skip, count and limit steps that would do harm.

    On a GPU, whether a step is skipped is decided there, where the optimizer can; then
    too many bad steps are noticed at the next logged step, or at the stage's last.

    A skipped step changes neither weights nor the optimizer's state, but it counts
    as a step: what a sample is depends on the number of steps done. A stage of skipped
    steps alone is an error before it is saved as finished. Logs ``train/grad_norm``
    (before clipping, mean of the steps since the last logged one) and
    ``train/skipped_steps``.

    Args:
        clip_norm: Largest 2-norm of all gradients together.
        max_bad_steps: Non-finite steps in a row that are borne; one more aborts.
        skip_factor: Steps whose norm is above so many times the median of the last
            ``NORMS`` ones are skipped too; none if null. They count among those, so a
            norm that stays large is soon accepted.

    Raises:
        ValueError: ``clip_norm`` is not positive, or ``skip_factor`` not above 1.
    """

    def __init__(
        self,
        clip_norm: float,
        max_bad_steps: int = 20,
        skip_factor: float | None = None,
    ) -> None:
        if not clip_norm > 0:
            raise ValueError(f"clip_norm is {clip_norm}, it must be above 0")
        if skip_factor is not None and not skip_factor > 1:
            raise ValueError(f"skip_factor is {skip_factor}, it must be above 1")
        self.clip_norm = clip_norm
        self.max_bad_steps = max_bad_steps
        self.skip_factor = skip_factor
        self.norms: list[float] = []
        self.skipped = 0
        self.bad_in_a_row = 0
        self.worst_in_a_row = 0
        self._counts: DeviceCounts | None = None
        self._interval = IntervalMeans()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Look at the gradients that all ranks have agreed on.

        Raises:
            DivergedError: Too many steps in a row were not finite.
        """
        groups = optimizer.param_groups
        parameters = [p for group in groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if skips_on_device(trainer, optimizer, norm):
            self._judge_on_device(optimizer, parameters, norm)
        else:
            self._judge(parameters, norm)
        self._interval.add("train/grad_norm", norm)
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (trainer.global_step + 1) % every == 0:
            self._read_device()
            # The ranks hold equal norms.
            figures = self._interval.take(lambda sums: sums)
            figures["train/skipped_steps"] = float(self.skipped)
            pl_module.log_dict(figures, logger=False)
            # Not by Lightning, which does it after the step's checkpoint.
            for logger in trainer.loggers:
                logger.log_metrics(figures, trainer.global_step)
        self._end_if_diverged(trainer.global_step)

    def _end_if_diverged(self, step: int) -> None:
        if self.worst_in_a_row > self.max_bad_steps:
            raise DivergedError(
                f"{self.worst_in_a_row} steps in a row had a gradient that is not "
                f"finite (now step {step}): the weights are those of the last good "
                "step, but training cannot go on; lower the learning rate or "
                "clip_norm, try precision 32-true, and look at train/grad_norm"
            )

    def _judge(self, parameters: list[Tensor], norm: Tensor) -> None:
        """Clip the gradients, or take them away where the step would do harm."""
        finite = bool(torch.isfinite(norm))
        self.bad_in_a_row = 0 if finite else self.bad_in_a_row + 1
        self.worst_in_a_row = self.bad_in_a_row
        if finite and not self._sticks_out(float(norm)):
            torch.nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
        else:
            self.skipped += 1
            # Optimizers pass over parameters without a gradient, weight decay too.
            for parameter in parameters:
                parameter.grad = None

    def _judge_on_device(
        self, optimizer: Any, parameters: list[Tensor], norm: Tensor
    ) -> None:
        """Do the same without knowing the norm: the optimizer asks a tensor."""
        if self._counts is None:
            in_a_row = self.bad_in_a_row, self.worst_in_a_row
            self._counts = DeviceCounts(
                self.skipped, *in_a_row, self.norms, norm.device
            )
        torch.nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
        optimizer.found_inf = self._counts.judge(norm, self.skip_factor)

    def _read_device(self) -> None:
        """Wait for the device, and take over its counts."""
        if self._counts is not None:
            self.skipped, *in_a_row, norms = self._counts.read()
            self.bad_in_a_row, self.worst_in_a_row = in_a_row
            self.norms = norms if self.skip_factor is not None else self.norms

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *batch: Any
    ) -> None:
        """Look at a stage's last step, before it is validated and saved.

        Raises:
            DivergedError: Too many steps in a row were not finite, or no step of the
                stage changed the weights.
        """
        if trainer.global_step != trainer.max_steps:
            return
        self._read_device()
        self._end_if_diverged(trainer.global_step)
        if trainer.global_step == self.skipped:
            raise DivergedError(
                f"each of its {self.skipped} steps was skipped, since none had a "
                "gradient that is finite: nothing was trained; lower the learning "
                "rate, or try precision 32-true"
            )

    def _sticks_out(self, norm: float) -> bool:
        """Note a norm, and compare it with those before."""
        if self.skip_factor is None:
            return False
        before, self.norms = self.norms, [*self.norms, norm][-NORMS:]
        if len(before) < NORMS // 10:
            return False
        return norm > self.skip_factor * median(before)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts and the last norms."""
        self._read_device()
        return {
            "skipped": self.skipped,
            "bad_in_a_row": self.bad_in_a_row,
            "worst_in_a_row": self.worst_in_a_row,
            "norms": self.norms,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped = state_dict["skipped"]
        self.bad_in_a_row = in_a_row = state_dict["bad_in_a_row"]
        self._counts = None
        # Earlier checkpoints have no worst, and those before the factor no norms.
        self.worst_in_a_row = state_dict.get("worst_in_a_row", in_a_row)
        self.norms = state_dict.get("norms", [])


class ValidationGuard(Callback):
    """End training whose validation loss is no number, before its weights are saved."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the mean over all clips and rates, the same on every rank.

        Raises:
            DivergedError: It is NaN or infinite.
        """
        loss = trainer.callback_metrics.get("val/loss")
        if loss is not None and not math.isfinite(loss):
            raise DivergedError(
                f"training has diverged: val/loss is {float(loss)} at step "
                f"{trainer.global_step}, and its weights were not saved; lower the "
                "learning rate or clip_norm, or try precision 32-true"
            )


class RankDivergenceGuard(Callback):
    """Raise if the ranks' weights are not bit-equal.

    Data-parallel training can end without an error while the ranks have drifted
    apart; every figure after that belongs to rank 0 only.

    Args:
        every_n_steps: Steps between two comparisons; the last step is compared too.
    """

    def __init__(self, every_n_steps: int = 200) -> None:
        self.every_n_steps = every_n_steps
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from where the stage stands."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *batch: Any
    ) -> None:
        """Compare every few steps, of which a batch may take several."""
        before, self._step = self._step, trainer.global_step
        if self._step // self.every_n_steps > before // self.every_n_steps:
            self._compare(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the stage's result."""
        self._compare(trainer, pl_module)

    def _compare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size == 1:
            return
        names = [name for name, _ in pl_module.named_parameters()]
        sums = torch.stack([bit_sum(p) for p in pl_module.parameters()])
        ranks = trainer.strategy.all_gather(sums).reshape(-1, len(names))
        differs = (ranks != ranks[0]).any(dim=0)
        if bool(differs.any()):
            first = names[int(differs.nonzero()[0])]
            raise RuntimeError(
                f"the ranks' weights differ at step {trainer.global_step}, in "
                f"{int(differs.sum())} of {len(names)} parameters, first {first}: "
                "gradients were not reduced everywhere (re-entrant checkpointing, or "
                "parameters frozen after DDP wrapped the module); restart from the "
                "last checkpoint before it"
            )


class UnusedWeightsGuard(Callback):
    """End data-parallel training of weights that a batch has no gradient for.

    DDP would wait for their gradients, share none of those in the same bucket, and end
    with an error of its own at the next step.
    """

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the gradients of a step.

        Raises:
            ValueError: A weight that trains has none, and DDP was not told to bear it.
        """
        ddp = trainer.strategy.model
        if not isinstance(ddp, DistributedDataParallel) or ddp.find_unused_parameters:
            return
        module = cast(CodecModule, pl_module)
        codec, stage = module.codec, module.stage
        if not ddp.require_backward_grad_sync or not (names := unused_weights(codec)):
            return
        parts = unused_parts(codec)
        row = f"give the row frozen: [{', '.join([*stage.frozen, *parts])}]"
        covered = tuple(f"{part}." for part in parts)
        if not all(name.startswith(covered) for name in names):
            row = "give --trainer.strategy ddp_find_unused_parameters_true"
        shown = ", ".join(names[:SHOWN])
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise ValueError(
            f"stage {stage.name!r} trains weights that its clips of {stage.frames} "
            f"frames do not use, which several devices cannot: {shown}{more}; {row}"
        )


def unused_weights(codec: nn.Module) -> list[str]:
    """Return the names of weights that train and have no gradient."""
    named = codec.named_parameters()
    return [name for name, p in named if p.requires_grad and p.grad is None]


def unused_parts(codec: nn.Module) -> list[str]:
    """Return the largest sub-modules of whose weights that train none has a gradient.

    A sub-module with weights that are frozen already counts, too.
    """
    parts: list[str] = []
    for name, part in codec.named_modules():
        trained = [p for p in part.parameters() if p.requires_grad]
        inner = name.startswith(tuple(f"{part}." for part in parts))
        if name and not inner and trained and all(p.grad is None for p in trained):
            parts.append(name)
    return parts


def bit_sum(tensor: Tensor) -> Tensor:
    """Return the sum of the elements' bit patterns, int64; NaNs compare too."""
    patterns = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    whole = tensor.detach().view(patterns[tensor.element_size()])
    return whole.sum(dtype=torch.int64)


class RateCollapseGuard(Callback):
    """Warn when the codec has stopped sending anything, or shows only noise."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._warned: set[str] = set()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the validation's means; warn once per stage."""
        stage = cast(CodecModule, pl_module).stage
        if not stage.codes:
            return
        bpp = float(trainer.callback_metrics.get("val/bpp", torch.inf))
        psnr = float(trainer.callback_metrics.get("val/psnr", torch.inf))
        collapsed = bpp < COLLAPSED_BPP or psnr < COLLAPSED_PSNR
        self._in_a_row = self._in_a_row + 1 if collapsed else 0
        if self._in_a_row > PATIENCE and stage.name not in self._warned:
            self._warned.add(stage.name)
            rank_zero_warn(
                f"stage {stage.name!r} has collapsed: val/bpp {bpp:.2g}, val/psnr "
                f"{psnr:.1f} dB in {self._in_a_row} validations in a row; the rate "
                "term outweighs the distortion: raise lmbda, lower the learning rate, "
                "or start from a stage without references"
            )


class RealBitsGuard(FirstClip):
    """Code a clip into real bytes at validation, decode it, and compare.

    Logs ``val/real_bpp`` (payload only) and ``val/real_to_estimated``. It codes as many
    frames as it takes to see two units, if the clip has them.
    """

    def look(self, module: CodecModule, result: ValidationResult, suffix: str) -> None:
        """Code, decode, compare and log.

        Raises:
            RuntimeError: The decoder's frames are not the encoder's.
        """
        if not module.stage.codes or not result.decoded:
            return
        frames = result.clip[0, : frames_to_look_at(module.codec)]
        rate = result.rate
        try:
            with _coding(module.codec) as codec:
                packets = list(codec.compress(frames, rate, reconstruct=True))
                decoded = list(codec.decompress(packets, *frames.shape[-2:]))
            sent = [frame for packet in packets for frame in cast(Tensor, packet.x_hat)]
            for number, frame in enumerate(sent):
                check_finite(frame, number, rate)
        except OverflowingError as error:
            # A later validation may do better, and training has a guard of its own.
            rank_zero_warn(f"real bits were not counted: {error}")
            return
        if not len(sent) == len(decoded) == len(frames):
            raise RuntimeError(
                f"of {len(frames)} frames {len(sent)} were coded and {len(decoded)} "
                "decoded: compress and decompress must yield every frame once"
            )
        for index, (x, y) in enumerate(zip(sent, decoded, strict=True)):
            if not torch.equal(x, y):
                raise RuntimeError(
                    f"frame {index} decodes differently from the encoder's own "
                    f"reconstruction at rate {rate:g}, by up to "
                    f"{float((x - y).abs().max()):.3g}: bitstreams of this codec "
                    "cannot be trusted; compress and decompress must run the same "
                    "operations on the same values"
                )
        bits = 8 * sum(len(packet.payload) for packet in packets)
        # At least one bit, lest a codec that sends nothing divides by zero.
        estimated = max(1.0, sum(packet.estimated_bits or 0.0 for packet in packets))
        pixels = frames.shape[0] * frames.shape[-2] * frames.shape[-1]
        figures = {
            "val/real_bpp": bits / pixels,
            "val/real_to_estimated": bits / estimated,
        }
        module.log_dict(figures, batch_size=1, rank_zero_only=True)
        # Each packet ends with up to 16 bytes of the coder's own.
        slack = REAL_BITS_TOLERANCE * estimated + 128 * len(packets)
        if abs(bits - estimated) > slack:
            # Escape codes are cheaper than what a Gaussian says of its far tails.
            reason = "the estimate that training minimises is not what a file will cost"
            if bits < estimated:
                reason += "; often only because the model does not fit the clip yet"
            rank_zero_warn(
                f"real bits are {bits / estimated:.3f} times the estimated ones at "
                f"rate {rate:g} ({bits} against {estimated:.0f}): {reason}"
            )


@contextmanager
def _coding(codec: VideoCodec) -> Iterator[VideoCodec]:
    """Give the codec in evaluation mode with fresh tables; leave it as it was.

    Lightning restores modes without calling ``train``, so tables made for these
    weights would outlive them.
    """
    modes = {module: module.training for module in codec.modules()}
    codec.eval()
    codec.tables = None
    try:
        with torch.no_grad():
            yield codec
    finally:
        for module, mode in modes.items():
            module.training = mode
        codec.tables = None
