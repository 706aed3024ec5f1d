"""A codec of one weight, a module of it, and a few steps of training."""

import zlib

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.progress import StageProgress
from lightning_modules.base import ValidationResult
from lightning_modules.codec import CodecOutput, RateKnob, VideoCodec
from lightning_modules.packets import Packet, Received
from lightning_modules.stages import Stage


class TinyCodec(VideoCodec):
    """Scales a clip; its bytes are the clip itself."""

    rate_knob = RateKnob("qp", 0, 63, (0, 21, 63))
    frames_per_unit = 1
    pad_multiple = 1

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(2))
        self.register_buffer("symbols", torch.arange(4))
        self.noise = 0.0
        self.tables_built = 0

    def forward(self, clip, rate):
        bits = clip.new_full(clip.shape[:2], 8.0)
        return CodecOutput(clip * self.scale.mean(), bits)

    def _compress(self, frames, schedule, reconstruct):
        assert not self.training
        assert self.tables == {}
        for frame in frames:
            payload = (frame * 255).round().byte().numpy().tobytes()
            yield Packet(
                payload, 1, zlib.crc32(payload), frame[None], 8.0 * len(payload)
            )

    def _receive(self, packets, height, width, scales):
        for packet in packets:
            frame = packet.x_hat[0]
            yield Received(frame + self.noise)

    def build_tables(self):
        self.tables_built += 1
        return {}

    def passes(self, height, width):
        return {}


class TinyModule(LightningModule):
    """Its loss is infinite in some steps, and a thousand times as large in others."""

    def __init__(self, bad_steps=(), peaks=()):
        super().__init__()
        self.codec = TinyCodec()
        self.stage = Stage("intra", 4, 1)
        self.stage_index, self.stage_count = 1, 3
        self.bad_steps, self.peaks = bad_steps, peaks

    @property
    def run_step(self):
        return 100 + self.trainer.global_step

    def training_step(self, batch, batch_idx):
        loss = (self.codec.scale * batch).sum()
        if self.trainer.global_step in self.bad_steps:
            loss = loss * torch.inf
        if self.trainer.global_step in self.peaks:
            loss = loss * 1e3
        self.log_dict({"train/loss": loss, "train/bpp": 0.25, "train/psnr": 31.0})
        return loss

    def validation_step(self, clip, batch_idx):
        return [
            ValidationResult(
                "river",
                f"qp{q}",
                q,
                clip,
                clip * self.codec.scale[0],
                clip[:, :, 0, 0, 0],
            )
            for q in (0, 21, 63)
        ]

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.1, weight_decay=0.5)


class WeightsRecorder(Callback):
    """Note the weights after each training step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.seen.append(pl_module.codec.scale.detach().clone())


@pytest.fixture(scope="session")
def tiny_module():
    """The class of a module whose codec scales a clip."""
    return TinyModule


@pytest.fixture
def recorder():
    return WeightsRecorder()


def train(module, *callbacks, steps=4, batch=1.0, clip=None, accumulate=1, **options):
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        log_every_n_steps=1,
        val_check_interval=2 * accumulate,
        accumulate_grad_batches=accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=any(isinstance(c, StageProgress) for c in callbacks),
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    data = [torch.tensor([batch, 2 * batch])] * 100
    clip = torch.rand(1, 5, 3, 8, 10) if clip is None else clip
    loaders = [torch.utils.data.DataLoader(d, batch_size=None) for d in (data, [clip])]
    trainer.fit(module, *loaders, **options)
    return trainer


@pytest.fixture(scope="session")
def fit():
    """Train a module with callbacks, validate every second step, give the trainer."""
    return train
