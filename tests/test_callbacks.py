"""Guards, moving average, pictures and progress, on a codec of one weight."""

import io
import types
import warnings
import zlib

import av
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from callbacks.clip_logger import ClipLogger, draw_strip, side_by_side
from callbacks.ema import CodecEMA
from callbacks.guards import (
    RankDivergenceGuard,
    RateCollapseGuard,
    RealBitsGuard,
    StepGuard,
)
from callbacks.map_logger import MapLogger, draw_maps
from callbacks.progress import StageProgress
from lightning_modules.base import ValidationResult
from lightning_modules.codec import CodecOutput, Packet, RateKnob, VideoCodec
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

    def compress(self, frames, rate, *, intra_period=-1, reconstruct=False):
        assert not self.training
        assert self.tables == {}
        for frame in frames:
            payload = (frame * 255).round().byte().numpy().tobytes()
            yield Packet(
                payload, 1, zlib.crc32(payload), frame[None], 8.0 * len(payload)
            )

    def decompress(self, packets, height, width):
        for packet in packets:
            frame = packet.x_hat[0]
            yield frame + self.noise

    def build_tables(self):
        self.tables_built += 1
        return {}

    def passes(self, height, width):
        return {}


class TinyModule(LightningModule):
    def __init__(self, bad_steps=()):
        super().__init__()
        self.codec = TinyCodec()
        self.stage = Stage("intra", 4, 1)
        self.stage_index, self.stage_count = 1, 3
        self.bad_steps = bad_steps

    @property
    def run_step(self):
        return 100 + self.trainer.global_step

    def training_step(self, batch, batch_idx):
        loss = (self.codec.scale * batch).sum()
        if self.trainer.global_step in self.bad_steps:
            loss = loss * torch.inf
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


def fit(module, *callbacks, steps=4, batch=1.0, clip=None, accumulate=1, **options):
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


class Recorder(Callback):
    """Call a function after each training step."""

    def __init__(self, function):
        self.function = function
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.seen.append(self.function(trainer, pl_module))


def weights(trainer, module):
    return module.codec.scale.detach().clone()


# StepGuard


def train_with_peaks(guard, steps, peaks):
    """Train with a loss that is a thousand times as large in the ``peaks``."""

    class Peaks(TinyModule):
        def training_step(self, batch, batch_idx):
            peak = self.trainer.global_step in peaks
            return (self.codec.scale * batch).sum() * (1e3 if peak else 1.0)

    fit(Peaks(), guard, steps=steps)


def test_a_norm_that_sticks_out_is_skipped_and_one_that_stays_is_not():
    guard = StepGuard(1.0, skip_factor=10.0)
    train_with_peaks(guard, 16, {12})
    assert (guard.skipped, guard.bad_in_a_row) == (1, 0)
    restored = StepGuard(1.0, skip_factor=10.0)
    restored.load_state_dict(guard.state_dict())
    assert restored.norms == guard.norms and len(guard.norms) == 16
    train_with_peaks(restored, 3, {1})
    assert restored.skipped == 2
    guard = StepGuard(1.0, skip_factor=10.0)
    train_with_peaks(guard, 40, range(15, 40))
    # Half of all norms seen so far are large after 15 of them.
    assert guard.skipped == 15
    for tolerant in (StepGuard(1.0), StepGuard(1.0, skip_factor=1e4)):
        train_with_peaks(tolerant, 16, {12})
        assert tolerant.skipped == 0
    with pytest.raises(ValueError, match="skip_factor is 1"):
        StepGuard(1.0, skip_factor=1)


def test_a_bad_step_is_skipped_counted_and_still_a_step():
    guard, recorder = StepGuard(1.0), Recorder(weights)
    module = TinyModule(bad_steps=(1, 2))
    trainer = fit(module, guard, recorder)
    first, second, third, fourth = recorder.seen
    assert torch.equal(first, second)
    assert torch.equal(second, third)
    assert not torch.equal(third, fourth)
    assert trainer.global_step == 4
    assert trainer.callback_metrics["train/skipped_steps"] == 2
    (state,) = trainer.optimizers[0].state.values()
    assert state["step"] == 2
    assert guard.state_dict() == {"skipped": 2, "bad_in_a_row": 0, "norms": []}


def test_the_gradient_is_clipped_to_the_norm():
    norms = []

    class Norms(StepGuard):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            super().on_before_optimizer_step(trainer, pl_module, optimizer)
            norms.append(float(pl_module.codec.scale.grad.norm()))

    trainer = fit(TinyModule(), Norms(1.0), steps=1, batch=3.0)
    assert trainer.callback_metrics["train/grad_norm"] == pytest.approx(45**0.5)
    assert norms == [pytest.approx(1.0, rel=1e-4)]
    fit(TinyModule(), Norms(10.0), steps=1, batch=3.0)
    assert norms[1] == pytest.approx(45**0.5)


def test_too_many_bad_steps_in_a_row_abort():
    guard = StepGuard(1.0, max_bad_steps=2)
    fit(TinyModule(bad_steps=(0, 1, 3, 4)), guard, steps=6)
    with pytest.raises(
        RuntimeError, match=r"3 steps in a row.*lower the learning rate"
    ):
        fit(TinyModule(bad_steps=range(9)), StepGuard(1.0, max_bad_steps=2))


def test_bad_steps_before_a_resume_count():
    guard = StepGuard(1.0, max_bad_steps=2)
    guard.load_state_dict({"skipped": 7, "bad_in_a_row": 2})
    with pytest.raises(RuntimeError, match="3 steps in a row"):
        fit(TinyModule(bad_steps=(0,)), guard)
    assert guard.skipped == 8


def test_a_norm_that_clips_everything_is_refused():
    with pytest.raises(ValueError, match="clip_norm is 0"):
        StepGuard(0)


# RankDivergenceGuard


@pytest.mark.parametrize("change", [0.0, 1e-7])
def test_one_different_bit_on_another_rank_is_found(change):
    module = TinyModule()
    other = TinyModule()
    with torch.no_grad():
        other.codec.scale[1] += change
    guard = RankDivergenceGuard(1)

    def all_gather(sums):
        theirs = torch.stack([p.view(torch.int32).sum() for p in other.parameters()])
        return torch.stack([sums, theirs])

    trainer = types.SimpleNamespace(
        world_size=2,
        global_step=1,
        strategy=types.SimpleNamespace(all_gather=all_gather),
    )
    if change:
        with pytest.raises(
            RuntimeError, match=r"in 1 of 1 parameters, first codec\.scale"
        ):
            guard.on_train_batch_end(trainer, module, None, None, 0)
    else:
        guard.on_train_batch_end(trainer, module, None, None, 0)


# RateCollapseGuard


def test_a_collapse_is_reported_once_per_stage():
    guard, module = RateCollapseGuard(patience=1), TinyModule()
    metrics = {"val/bpp": torch.tensor(0.2), "val/psnr": torch.tensor(30.0)}
    trainer = types.SimpleNamespace(sanity_checking=False, callback_metrics=metrics)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard.on_validation_end(trainer, module)
        metrics["val/bpp"] = torch.tensor(1e-6)
        guard.on_validation_end(trainer, module)
    with pytest.warns(UserWarning, match="'intra' has collapsed.*raise lmbda"):
        guard.on_validation_end(trainer, module)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard.on_validation_end(trainer, module)
    module.stage = Stage("next", 1, 1)
    metrics["val/bpp"], metrics["val/psnr"] = torch.tensor(0.2), torch.tensor(5.0)
    with pytest.warns(UserWarning, match="'next' has collapsed"):
        guard.on_validation_end(trainer, module)


def test_a_stage_without_bits_neither_collapses_nor_codes():
    module = TinyModule()
    module.stage = Stage("vae", 4, 1, weights={"rate": 0.0})
    metrics = {"val/bpp": torch.tensor(0.0), "val/psnr": torch.tensor(30.0)}
    trainer = types.SimpleNamespace(sanity_checking=False, callback_metrics=metrics)
    guard = RateCollapseGuard(patience=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard.on_validation_end(trainer, module)
    assert "val/real_bpp" not in fit(module, RealBitsGuard()).callback_metrics
    module.stage = Stage("all", 4, 1)
    with pytest.warns(UserWarning, match="'all' has collapsed"):
        guard.on_validation_end(trainer, module)


# RealBitsGuard


def test_real_bits_are_logged_and_the_codec_is_left_as_it_was():
    module = TinyModule()
    trainer = fit(module, RealBitsGuard(frames=2))
    assert trainer.callback_metrics["val/real_bpp"] == 24
    assert trainer.callback_metrics["val/real_to_estimated"] == 1
    assert module.codec.training
    assert module.codec._tables is None
    assert module.codec.tables_built == 2  # Anew for each validation's weights.


def test_a_decoder_that_differs_ends_the_run():
    module = TinyModule()
    module.codec.noise = 1e-3
    with pytest.raises(RuntimeError, match=r"frame 0 decodes differently.*rate 21"):
        fit(module, RealBitsGuard())
    assert module.codec._tables is None


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (0.5, r"2\.000 times the estimated.*will cost$"),
        (2.0, r"0\.500 times the estimated.*does not fit the clip yet$"),
    ],
)
def test_a_wrong_estimate_is_a_warning(monkeypatch, factor, said):
    module = TinyModule()
    real = module.codec.compress

    def scaled(*args, **kwargs):
        for p in real(*args, **kwargs):
            yield Packet(p.payload, 1, p.checksum, p.x_hat, factor * p.estimated_bits)

    monkeypatch.setattr(module.codec, "compress", scaled)
    with pytest.warns(UserWarning, match=said):
        fit(module, RealBitsGuard(), clip=torch.rand(1, 2, 3, 32, 32))


# CodecEMA


def test_the_average_validates_and_the_training_weights_come_back():
    seen = []

    class Look(Callback):
        def on_validation_batch_end(self, trainer, pl_module, *args):
            seen.append(pl_module.codec.scale.detach().clone())

    ema, recorder, module = CodecEMA(0.25), Recorder(weights), TinyModule()
    # Before the average in the list: it must not matter.
    fit(module, recorder, Look(), ema)
    average = torch.ones(2)
    for step, value in enumerate(recorder.seen, start=1):
        decay = min(0.25, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
        if step % 2 == 0:
            assert torch.allclose(seen[step // 2 - 1], average)
    assert torch.equal(module.codec.scale, recorder.seen[-1])
    assert set(ema.average) == {"scale"}
    assert module.codec.symbols.tolist() == [0, 1, 2, 3]


def test_a_failed_validation_gives_the_training_weights_back():
    class Fail(Callback):
        def on_validation_batch_end(self, *args):
            raise OSError("disk")

    module, recorder = TinyModule(), Recorder(weights)
    with pytest.raises(OSError, match="disk"):
        fit(module, CodecEMA(), recorder, Fail())
    assert torch.equal(module.codec.scale, recorder.seen[-1])


class SaveAt(Callback):
    """Save at the end of a batch, and during validation."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, *args):
        path = self.path / "batch.ckpt"
        # Only once: amid accumulated batches the gradients so far would be lost.
        if trainer.global_step == 3 and not path.exists():
            trainer.save_checkpoint(path)

    def on_validation_batch_end(self, trainer, *args):
        if trainer.global_step == 2:
            trainer.save_checkpoint(self.path / "validation.ckpt")


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", ["batch", "validation"])
def test_a_resumed_average_is_exact(tmp_path, name, accumulate):
    whole, whole_module = CodecEMA(0.9), TinyModule()
    # The saver runs first: the average must catch up with the step by itself.
    fit(whole_module, SaveAt(tmp_path), whole, steps=6, accumulate=accumulate)
    path = tmp_path / f"{name}.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    trained, averaged = (
        checkpoint["state_dict"]["codec.scale"],
        checkpoint["ema"]["scale"],
    )
    assert not torch.equal(trained, averaged)
    resumed, module = CodecEMA(0.9), TinyModule()
    options = {"ckpt_path": path, "weights_only": True, "accumulate": accumulate}
    fit(module, resumed, steps=6, **options)
    assert torch.equal(module.codec.scale, whole_module.codec.scale)
    assert torch.equal(resumed.average["scale"], whole.average["scale"])


def test_an_average_of_another_codec_is_refused():
    ema = CodecEMA()
    ema.on_load_checkpoint(None, None, {"ema": {"gain": torch.ones(1)}})
    with pytest.raises(ValueError, match=r"\['gain', 'scale'\].*--init_from"):
        fit(TinyModule(), ema)


# ClipLogger


def test_a_strip_has_a_row_per_frame_and_three_columns():
    clip = torch.rand(7, 3, 150, 200)
    assert draw_strip(clip, clip).shape == (4 * (150 + 18), 3 * 200, 3)
    assert draw_strip(clip[:2], clip[:2]).shape == (2 * (150 + 18), 3 * 200, 3)
    small, large = clip[:1, :, :40, :50], torch.rand(1, 3, 30, 1290)
    assert draw_strip(small, small).shape == (18 + 120, 3 * 150, 3)
    assert draw_strip(large, large).shape == (18 + 10, 3 * 430, 3)


def test_a_strip_shows_source_reconstruction_and_tenfold_error():
    clip = torch.full((1, 3, 128, 128), 128 / 255)
    strip = draw_strip(clip, clip - 5 / 255)
    row = strip[18:].reshape(128, 3, 128, 3)
    assert [int(row[64, column, 64, 0]) for column in range(3)] == [128, 123, 50]
    assert strip[:18].max() > 200  # The caption.


def test_each_validation_leaves_a_strip_and_a_video(tmp_path):
    fit(TinyModule(), ClipLogger(tmp_path, frames=3), clip=torch.rand(1, 5, 3, 33, 47))
    names = {path.name for path in (tmp_path / "media").iterdir()}
    stems = ("0000102_intra", "0000104_intra")
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("png", "mp4")}
    with av.open(str(tmp_path / "media" / "0000104_intra.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert [frame.shape for frame in frames] == [(32, 92, 3)] * 3


def test_a_video_shows_the_source_at_the_left(tmp_path):
    left, right = torch.zeros(3, 17, 17), torch.ones(3, 17, 17)
    both = side_by_side(left, right)
    assert both.shape == (16, 32, 3)
    assert both[:, :16].max() == 0
    assert both[:, 16:].min() == 255


def test_a_picture_that_cannot_be_written_is_a_warning(tmp_path):
    (tmp_path / "media").write_text("in the way")
    with pytest.warns(UserWarning, match="no picture 0000102_intra.*FileExistsError"):
        trainer = fit(TinyModule(), ClipLogger(tmp_path))
    assert trainer.global_step == 4


# MapLogger


class MappedCodec(TinyCodec):
    def maps(self, frame, rate):
        ramp = torch.arange(6.0).reshape(2, 3)
        return {f"map{i}": ramp * i for i in range(1, 6)}


def test_each_validation_leaves_a_picture_of_the_codecs_maps(tmp_path):
    module = TinyModule()
    module.codec = MappedCodec()
    trainer = fit(module, MapLogger(tmp_path))
    names = {path.name for path in (tmp_path / "media").iterdir()}
    assert names == {f"0000{n}_intra_maps.png" for n in (102, 104)}
    figures = trainer.callback_metrics
    assert float(figures["val/map/map2_mean"]) == pytest.approx(5.0)
    assert float(figures["val/map/map2_std"]) == pytest.approx(2 * (35 / 12) ** 0.5)


def test_a_codec_without_maps_leaves_no_picture(tmp_path):
    fit(TinyModule(), MapLogger(tmp_path))
    assert not (tmp_path / "media").exists()


def test_maps_are_drawn_from_black_to_white_in_rows_of_four():
    picture = draw_maps(MappedCodec().maps(None, 0))
    tile = 43 * 3  # Grown to at least 128 pixels.
    assert picture.shape == (2 * (18 + 2 * 43 + 18), 4 * tile, 3)
    row = picture[18 : 18 + 2 * 43, :tile]
    assert row[0, 0, 0] == 0 and row[-1, -1, 0] == 255
    assert picture[-30, tile:].max() == 0  # Nothing beside the fifth.


# StageProgress


def test_a_log_file_gets_plain_lines():
    text = io.StringIO()
    bar = StageProgress(seconds=0.0, console=Console(file=text, force_terminal=False))
    fit(TinyModule(), RealBitsGuard(), bar)
    lines = text.getvalue().splitlines()
    assert lines[0] == "stage 2/3 intra: 4 steps"
    assert lines[1].startswith("stage 2/3 intra  1/4  loss ")
    assert "0.2500 bpp  31.00 dB  0:00:0" in lines[1]
    assert "stage 2/3 intra  validation at step 2  24.0000 real bpp" in lines
    assert "\x1b" not in text.getvalue()


def test_a_terminal_gets_a_bar():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=150)
    fit(TinyModule(), StageProgress(console=console))
    assert "4/4" in text.getvalue()
    assert "━" in text.getvalue()
    assert "31.00 dB" in text.getvalue()


def test_other_ranks_are_silent():
    text = io.StringIO()
    bar = StageProgress(seconds=0.0, console=Console(file=text))
    bar.disable()
    fit(TinyModule(), bar)
    assert text.getvalue() == ""
