"""Guards: bad steps, ranks that differ, rates that collapse, bits that are not real."""

import types
import warnings
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import lightning_modules
from callbacks import guards
from callbacks.guards import (
    RankDivergenceGuard,
    RateCollapseGuard,
    RealBitsGuard,
    StepGuard,
    UnusedWeightsGuard,
)
from lightning_modules.base import ValidationResult
from lightning_modules.packets import Packet
from lightning_modules.stages import Stage


def test_a_norm_that_sticks_out_is_skipped_and_one_that_stays_is_not(tiny_module, fit):
    guard = StepGuard(1.0, skip_factor=10.0)
    fit(tiny_module(peaks={12}), guard, steps=16)
    assert (guard.skipped, guard.bad_in_a_row) == (1, 0)
    restored = StepGuard(1.0, skip_factor=10.0)
    restored.load_state_dict(guard.state_dict())
    assert restored.norms == guard.norms and len(guard.norms) == 16
    fit(tiny_module(peaks={1}), restored, steps=3)
    assert restored.skipped == 2
    guard = StepGuard(1.0, skip_factor=10.0)
    fit(tiny_module(peaks=range(15, 40)), guard, steps=40)
    # Half of all norms seen so far are large after 15 of them.
    assert guard.skipped == 15
    for tolerant in (StepGuard(1.0), StepGuard(1.0, skip_factor=1e4)):
        fit(tiny_module(peaks={12}), tolerant, steps=16)
        assert tolerant.skipped == 0
    with pytest.raises(ValueError, match="skip_factor is 1"):
        StepGuard(1.0, skip_factor=1)


def test_a_bad_step_is_skipped_counted_and_still_a_step(tiny_module, fit, recorder):
    guard = StepGuard(1.0)
    module = tiny_module(bad_steps=(1, 2))
    trainer = fit(module, guard, recorder)
    first, second, third, fourth = recorder.seen
    assert torch.equal(first, second)
    assert torch.equal(second, third)
    assert not torch.equal(third, fourth)
    assert trainer.global_step == 4
    assert trainer.callback_metrics["train/skipped_steps"] == 2
    (state,) = trainer.optimizers[0].state.values()
    assert state["step"] == 2
    rows = {"bad_in_a_row": 0, "worst_in_a_row": 0}
    assert guard.state_dict() == {"skipped": 2, **rows, "norms": []}


def test_the_gradient_is_clipped_to_the_norm(tiny_module, fit):
    norms = []

    class Norms(StepGuard):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            super().on_before_optimizer_step(trainer, pl_module, optimizer)
            norms.append(float(pl_module.codec.scale.grad.norm()))

    trainer = fit(tiny_module(), Norms(1.0), steps=1, batch=3.0)
    assert trainer.callback_metrics["train/grad_norm"] == pytest.approx(45**0.5)
    assert norms == [pytest.approx(1.0, rel=1e-4)]
    fit(tiny_module(), Norms(10.0), steps=1, batch=3.0)
    assert norms[1] == pytest.approx(45**0.5)


def test_the_logged_norm_is_the_mean_of_the_interval():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], 0.1)
    logged = []
    logger = SimpleNamespace(
        log_metrics=lambda figures, step: logged.append(figures["train/grad_norm"])
    )
    module = SimpleNamespace(log_dict=lambda *_, **__: None)
    guard = StepGuard(100.0)
    for step, norm in enumerate((1.0, 5.0, float("nan"), 7.0)):
        trainer = SimpleNamespace(
            global_step=step, log_every_n_steps=2, loggers=[logger]
        )
        parameter.grad = torch.tensor([norm])
        guard.on_before_optimizer_step(trainer, module, optimizer)
    assert logged == [3.0, 7.0]


def test_too_many_bad_steps_in_a_row_abort(tiny_module, fit):
    guard = StepGuard(1.0, max_bad_steps=2)
    fit(tiny_module(bad_steps=(0, 1, 3, 4)), guard, steps=6)
    with pytest.raises(
        RuntimeError, match=r"3 steps in a row.*lower the learning rate"
    ):
        fit(tiny_module(bad_steps=range(9)), StepGuard(1.0, max_bad_steps=2))


def test_bad_steps_before_a_resume_count(tiny_module, fit):
    guard = StepGuard(1.0, max_bad_steps=2)
    guard.load_state_dict({"skipped": 7, "bad_in_a_row": 2})
    with pytest.raises(RuntimeError, match="3 steps in a row"):
        fit(tiny_module(bad_steps=(0,)), guard)
    assert guard.skipped == 8


def steps_on_device(guard, norms, monkeypatch, every=50):
    """Have a guard judge gradients as on a GPU, where one fused optimizer steps."""
    monkeypatch.setattr(guards, "skips_on_device", lambda *_: True)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], 0.1, fused=True)
    module = SimpleNamespace(log_dict=lambda *_, **__: None)
    trainer = SimpleNamespace(
        global_step=0, max_steps=len(norms), log_every_n_steps=every, loggers=[]
    )
    for norm in norms:
        weight.grad = torch.tensor([norm])
        guard.on_before_optimizer_step(trainer, module, optimizer)
        optimizer.step()
        trainer.global_step += 1
        guard.on_train_batch_end(trainer, module, None, None, 0)
    return weight


def test_a_stage_that_ends_between_logged_steps_does_not_hide_bad_ones(monkeypatch):
    nan = float("nan")
    guard = StepGuard(1.0, max_bad_steps=2)
    assert steps_on_device(guard, [1.0, nan, nan, 1.0], monkeypatch) < 0
    assert (guard.skipped, guard.bad_in_a_row) == (2, 0)
    with pytest.raises(RuntimeError, match=r"3 steps in a row.*now step 5"):
        steps_on_device(StepGuard(1.0, 2), [1.0, 1.0, nan, nan, nan], monkeypatch)


def test_bad_steps_before_a_save_between_logged_steps_count(monkeypatch):
    nan = float("nan")
    guard = StepGuard(1.0, max_bad_steps=2)
    monkeypatch.setattr(guard, "on_train_batch_end", lambda *_: None)
    steps_on_device(guard, [1.0, nan, nan, nan, 1.0], monkeypatch)
    restored = StepGuard(1.0, max_bad_steps=2)
    restored.load_state_dict(guard.state_dict())
    for other in (guard, restored):
        with pytest.raises(RuntimeError, match="3 steps in a row"):
            steps_on_device(other, [1.0], monkeypatch, every=1)


def test_a_norm_that_clips_everything_is_refused():
    with pytest.raises(ValueError, match="clip_norm is 0"):
        StepGuard(0)


@pytest.mark.parametrize("change", [0.0, 1e-7])
def test_one_different_bit_on_another_rank_is_found(tiny_module, change):
    module = tiny_module()
    other = tiny_module()
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


def test_a_collapse_is_reported_once_per_stage(tiny_module):
    guard, module = RateCollapseGuard(), tiny_module()
    metrics = {"val/bpp": torch.tensor(0.2), "val/psnr": torch.tensor(30.0)}
    trainer = types.SimpleNamespace(callback_metrics=metrics)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard.on_validation_end(trainer, module)
        metrics["val/bpp"] = torch.tensor(1e-6)
        guard.on_validation_end(trainer, module)
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


def test_a_stage_without_bits_neither_collapses_nor_codes(tiny_module, fit):
    module = tiny_module()
    module.stage = Stage("vae", 4, 1, weights={"rate": 0.0})
    metrics = {"val/bpp": torch.tensor(0.0), "val/psnr": torch.tensor(30.0)}
    trainer = types.SimpleNamespace(callback_metrics=metrics)
    guard = RateCollapseGuard()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard.on_validation_end(trainer, module)
    assert "val/real_bpp" not in fit(module, RealBitsGuard()).callback_metrics
    module.stage = Stage("all", 4, 1)
    guard.on_validation_end(trainer, module)
    guard.on_validation_end(trainer, module)
    with pytest.warns(UserWarning, match="'all' has collapsed"):
        guard.on_validation_end(trainer, module)


def test_real_bits_are_logged_and_the_codec_is_left_as_it_was(tiny_module, fit):
    module = tiny_module()
    trainer = fit(module, RealBitsGuard())
    assert trainer.callback_metrics["val/real_bpp"] == 24
    assert trainer.callback_metrics["val/real_to_estimated"] == 1
    assert module.codec.training
    assert module.codec._tables is None
    assert module.codec.tables_built == 2  # Anew for each validation's weights.


@pytest.mark.parametrize("name", lightning_modules.CODECS)
def test_real_bits_are_of_two_units_whatever_the_codec(
    name, lively_module, scene, monkeypatch
):
    arguments = {"VideoVAE": {"backbone": "lean_vae", "lpips": "random"}}
    module = lively_module(name, **arguments.get(name, {}))
    codec, logged, coded, decoded = module.codec, {}, [], []
    compress, decompress = codec.compress, codec.decompress

    def note_packets(*given, **settings):
        for packet in compress(*given, **settings):
            coded.append(packet.frames)
            yield packet

    def note_frames(*given):
        for frame in decompress(*given):
            decoded.append(frame)
            yield frame

    monkeypatch.setattr(codec, "compress", note_packets)
    monkeypatch.setattr(codec, "decompress", note_frames)
    monkeypatch.setattr(module, "log_dict", lambda figures, **_: logged.update(figures))
    clip = scene(17, 48, 64)[None]
    bits = torch.ones(1, 17)
    result = ValidationResult("pan", "", codec.rate_knob.points[0], clip, clip, bits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        RealBitsGuard().look(module, result, "")
    assert logged["val/real_bpp"] > 0
    assert sum(coded) == len(decoded) < 17
    assert len(list(filter(None, coded))) > 1
    # Where units are coded apart, also the first frame that is the second's alone.
    assert codec.boundaries(len(decoded)) == codec.boundaries(17)[:2]


def test_a_decoder_that_differs_ends_the_run(tiny_module, fit):
    module = tiny_module()
    module.codec.noise = 1e-3
    with pytest.raises(RuntimeError, match=r"frame 0 decodes differently.*rate 21"):
        fit(module, RealBitsGuard())
    assert module.codec._tables is None


def test_a_codec_that_overflows_is_a_warning_and_training_goes_on(
    tiny_module, fit, monkeypatch
):
    module = tiny_module()
    real = module.codec.compress

    def overflowing(*args, **kwargs):
        for number, p in enumerate(real(*args, **kwargs)):
            x_hat = p.x_hat * torch.nan if number == 2 else p.x_hat
            yield Packet(p.payload, 1, p.checksum, x_hat, p.estimated_bits)

    monkeypatch.setattr(module.codec, "compress", overflowing)
    with pytest.warns(UserWarning, match=r"not counted: frame 2 holds NaN.*rate 21"):
        trainer = fit(module, RealBitsGuard())
    assert trainer.global_step == 4
    assert "val/real_bpp" not in trainer.callback_metrics
    assert module.codec._tables is None


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (0.5, r"2\.000 times the estimated.*will cost$"),
        (2.0, r"0\.500 times the estimated.*does not fit the clip yet$"),
    ],
)
def test_a_wrong_estimate_is_a_warning(tiny_module, fit, monkeypatch, factor, said):
    module = tiny_module()
    real = module.codec.compress

    def scaled(*args, **kwargs):
        for p in real(*args, **kwargs):
            yield Packet(p.payload, 1, p.checksum, p.x_hat, factor * p.estimated_bits)

    monkeypatch.setattr(module.codec, "compress", scaled)
    with pytest.warns(UserWarning, match=said):
        fit(module, RealBitsGuard(), clip=torch.rand(1, 2, 3, 32, 32))


@pytest.fixture
def alone():
    """A process group of this process only."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Branches(torch.nn.Module):
    """Of its weights, ``late`` and ``own`` are used only if told to."""

    def __init__(self):
        super().__init__()
        self.early, self.spare = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        self.late = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
        self.own = torch.nn.Parameter(torch.ones(1))
        self.spare.requires_grad_(False)

    def forward(self, x, late, own):
        x = self.early(x)
        x = self.late(x) if late else x
        return x * self.own if own else x


@pytest.mark.parametrize(
    ("late", "own", "told", "said"),
    [
        (False, True, {}, ["late.0.weight", "2 more", "frozen: [spare, late]"]),
        (True, False, {}, ["own;", "--trainer.strategy ddp_find_unused"]),
        (True, True, {}, []),
        (False, False, {"find_unused_parameters": True}, []),
    ],
)
def test_weights_without_a_gradient_end_training_on_several_devices(
    late, own, told, said, alone, monkeypatch
):
    monkeypatch.setattr("callbacks.guards.SHOWN", 2)
    codec = Branches()
    ddp = DistributedDataParallel(codec, **told)
    stage = Stage("pairs", 1, 3, frozen=["spare"])
    module = SimpleNamespace(codec=codec, stage=stage)
    trainer = SimpleNamespace(strategy=SimpleNamespace(model=ddp))
    ddp(torch.ones(1, 1), late, own).sum().backward()
    guard = UnusedWeightsGuard()
    if said:
        with pytest.raises(ValueError, match="'pairs' trains weights") as error:
            guard.on_after_backward(trainer, module)
        assert all(text in str(error.value) for text in said)
    else:
        guard.on_after_backward(trainer, module)
    # One device trains what is used.
    trainer.strategy.model = codec
    guard.on_after_backward(trainer, module)
