"""Between logged steps nobody waits for a GPU: training steps on one that is made up.

Tensors on it have shapes and no values, so whatever would wait to read one fails. What
lies on the CPU is real.
"""

from contextlib import nullcontext
from copy import copy, deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lightning_modules
from callbacks.device_counts import NORMS, DeviceCounts
from callbacks.ema import CodecEMA
from callbacks.guards import StepGuard
from datamodules.options import DataOptions
from datamodules.video import VideoDataModule
from lightning_modules.draw import sent
from lightning_modules.entropy import lasting
from lightning_modules.stages import Stage

GPU = torch.device("cuda", 0)
FRAMES = {"UI2C": 3, "VideoVAE": 3}
"""Of those that need more than two to have a reference."""
SMALL = {
    "DHVC": [{}],
    "DualDomain": [{"step": "moe", "z_prior": "bottleneck"}],
    "ScaleSpaceFlow": [{"distortion": "ms_ssim"}],
    "UI2C": [{}],
    "VideoVAE": [
        {
            "backbone": "lean_vae",
            "z_prior": "bottleneck",
            "frames_per_unit": 5,
            "beta": 0.0,
        },
        {"backbone": "cv_vae", "frames_per_unit": 5, "lpips": "random"},
    ],
}
CASES = [
    (name, arguments)
    for name in lightning_modules.CODECS
    for arguments in SMALL.get(name, [{}])
]


class Waits(AssertionError):
    """Something waited for the GPU."""


class MadeUpGPU(TorchDispatchMode):
    """Runs what lies on the CPU as ever, and all else without values."""

    def __init__(self):
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.sent = 0

    def __enter__(self):
        self.fake.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.fake.__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        fake = any(isinstance(x, FakeTensor) for x in given)
        target = kwargs.get("device")
        to_gpu = target is not None and torch.device(target).type == "cuda"
        if not fake and not to_gpu:
            with unset_fake_temporarily():
                return function(*args, **kwargs)
        name = function.overloadpacket.__name__
        if fake and target is not None and torch.device(target).type == "cpu":
            raise Waits(f"{name} copies to the CPU")
        # Scalars of the CPU are arguments of kernels; other tensors are copied.
        copied = [x for x in given if not isinstance(x, FakeTensor) and x.ndim]
        if copied and not kwargs.get("non_blocking"):
            raise Waits(f"{name} copies {[tuple(x.shape) for x in copied]} and waits")
        self.sent += len(copied)
        try:
            return function(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise Waits(f"{name} reads a value") from error


def module_on_gpu(name, arguments, gpu):
    """Build a codec's module, whose weights move to the GPU that is made up."""
    module = getattr(lightning_modules, name)(size="tiny", **arguments)
    module.start_stage(Stage("s", 9, FRAMES.get(name, 2), crop=64), 0, 1, 0)
    networks = [module]
    if "lpips" in module._weighed_rows().values():
        # All modules share one.
        lpips = module.losses.lpips = copy(module.losses.lpips)
        network = deepcopy(lpips.network)
        lpips._on = lambda device: network
        networks.append(network)
    with gpu, torch.no_grad():
        for network in networks:
            _move(network)
    return module.train()


def _move(network):
    for part in network.modules():
        for kind in (part._parameters, part._buffers):
            for name, own in kind.items():
                if own is not None and not isinstance(own, FakeTensor):
                    there = own.detach().to(GPU, non_blocking=True)
                    kind[name] = (
                        torch.nn.Parameter(there, own.requires_grad)
                        if isinstance(own, torch.nn.Parameter)
                        else there
                    )


def attach(module, step):
    """Give the module a trainer, some steps before one that is logged."""
    trainer = SimpleNamespace(
        accumulate_grad_batches=1,
        global_step=step,
        max_steps=99,
        log_every_n_steps=50,
        loggers=[],
        precision_plugin=None,
    )
    module._trainer = trainer
    module._fabric = None
    return trainer


def step_of(module, trainer, guard, average, optimizer, gpu):
    batch = {
        "clip": torch.randint(
            0, 256, (2, module.stage.frames, 3, 64, 64), dtype=torch.uint8
        ),
        "index": torch.tensor([2**40 + 7, 11]),
    }
    with gpu:
        batch = VideoDataModule(DataOptions()).transfer_batch_to_device(batch, GPU, 0)
        batch["clip"] = batch["clip"].float() / 255
        module.on_train_batch_start(batch, 0)
        loss = module.training_step(batch, 0)
        assert loss.requires_grad
        # The engine of gradients wants a real device.
        for parameter in module.codec.parameters():
            parameter.grad = torch.zeros_like(parameter)
        average.on_before_optimizer_step(trainer, module, optimizer)
        guard.on_before_optimizer_step(trainer, module, optimizer)


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_a_step_that_is_not_logged_waits_for_nothing(name, arguments, monkeypatch):
    monkeypatch.setattr(torch, "manual_seed", lambda seed: None)
    # The device that is made up is a mode itself, and what lasts is made on it.
    monkeypatch.setattr(lasting, "_disable_current_modes", nullcontext)
    gpu = MadeUpGPU()
    module = module_on_gpu(name, arguments, gpu)
    guard, average = StepGuard(1.0, skip_factor=10.0), CodecEMA(0.99)
    trainer = attach(module, 3)
    with gpu:
        average.on_fit_start(trainer, module)
    groups = [{"params": list(module.codec.parameters()), "fused": True}]
    optimizer = SimpleNamespace(param_groups=groups)
    # The first one fills what is kept: the rate points, masks of coding steps.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MadeUpGPU, "__torch_dispatch__", _lenient)
        step_of(module, trainer, guard, average, optimizer, gpu)
    trainer.global_step += 1
    step_of(module, trainer, guard, average, optimizer, gpu)
    assert gpu.sent
    assert isinstance(optimizer.found_inf, FakeTensor)


strict = MadeUpGPU.__torch_dispatch__


def _lenient(self, function, types, args=(), kwargs=None):
    try:
        return strict(self, function, types, args, kwargs)
    except Waits as wait:
        if "copies [" not in str(wait):
            raise
        return function(*args, **(kwargs or {}))


def test_reading_a_value_and_blocking_copies_are_found():
    with MadeUpGPU() as gpu:
        x = sent(torch.ones(3), GPU)
        assert gpu.sent == 1
        for wait in (
            lambda: float(x.sum()),
            lambda: bool((x > 0).all()),
            lambda: x[x > 0],
            lambda: x.cpu(),
            lambda: x + torch.ones(3).to(GPU),
            lambda: torch.tensor([1.0, 2.0], device=GPU),
            lambda: x[torch.tensor([0, 1])],
        ):
            with pytest.raises(Waits):
                wait()


def test_counts_on_a_device_are_those_of_the_guard():
    generator = torch.Generator().manual_seed(1)
    plain, fused = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizers = [
        torch.optim.AdamW([weight], 0.1, fused=kind)
        for weight, kind in ((plain, False), (fused, True))
    ]
    guard = StepGuard(1.0, max_bad_steps=3, skip_factor=4.0)
    counts = DeviceCounts(0, 0, 0, [], torch.device("cpu"))
    for step in range(NORMS + 60):
        gradient = torch.rand(3, generator=generator)
        gradient *= {0: 100.0, 5: torch.inf}.get(step % 17, 1.0)
        for parameter in (plain, fused):
            parameter.grad = gradient.clone()
        norm = torch.nn.utils.get_total_norm([gradient])
        guard._judge([plain], norm)
        torch.nn.utils.clip_grads_with_norm_([fused], 1.0, norm)
        optimizers[1].found_inf = counts.judge(norm, guard.skip_factor)
        assert bool(optimizers[1].found_inf) == (plain.grad is None)
        for optimizer in optimizers:
            optimizer.step()
        torch.testing.assert_close(plain, fused)
    skipped, in_a_row, worst, norms = counts.read()
    assert (skipped, in_a_row, norms) == (
        guard.skipped,
        guard.bad_in_a_row,
        guard.norms,
    )
    assert worst == 1 and skipped > 10
    assert optimizers[1].state[fused]["step"] == step + 1 - skipped
