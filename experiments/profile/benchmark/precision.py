"""Training in bfloat16 or TF32 beside float32, and the optimizer in one kernel.

On a processor products of bfloat16 are fast only where it has instructions for them.
"""

from collections.abc import Callable, Iterator

import torch

import lightning_modules
from experiments.fit.layers import parameters
from experiments.profile.benchmark.figures import Figure, Settings
from lightning_modules.alternating import alternating
from lightning_modules.base import CodecModule
from lightning_modules.float32 import allow, restored
from lightning_modules.optimizer import adamw
from lightning_modules.stages import Stage

FRAMES = 3
"""At least, of a clip: the second and the third refer to others."""


def measure(settings: Settings) -> list[Figure]:
    """Return, for each codec, what a step and its optimizer take.

    Args:
        settings: Say on which device; ``small`` takes tiny networks.
    """
    small = settings.form == "small"
    repeats = 1 if small else 7
    device = torch.device(settings.device)
    found: list[Figure] = []
    with restored():
        for name in lightning_modules.CODECS:
            module = _module(name, "tiny" if small else "small").to(device)
            clip = torch.rand(1, module.stage.frames, 3, *[64 if small else 256] * 2)
            note = f"{tuple(clip.shape)}, {settings.device}, {repeats} runs each"
            found += _steps(name, module, clip.to(device), repeats, note)
            found.append(_optimizer(name, module, repeats, settings.device))
    return found


def _module(name: str, size: str) -> CodecModule:
    kind = getattr(lightning_modules, name)
    wanted = {"size": size, "lpips": "random"}
    known = parameters(kind)
    torch.manual_seed(0)
    module: CodecModule = kind(**{k: v for k, v in wanted.items() if k in known})
    frames = max(FRAMES, module.codec.frames_per_unit)
    module.start_stage(Stage("step", 1, frames), 0, 1, 0)
    return module.train()


def _steps(
    name: str, module: CodecModule, clip: torch.Tensor, repeats: int, note: str
) -> Iterator[Figure]:
    """Give the ratios of a step's time to that in float32."""
    kind = clip.device.type

    def step(matmul_precision: str, half: bool) -> Callable[[], None]:
        def run() -> None:
            allow(matmul_precision, benchmark=False)
            index = torch.zeros(len(clip), dtype=torch.int64, device=clip.device)
            draw = module.draw(clip, index, training=True)
            with torch.autocast(kind, dtype=torch.bfloat16, enabled=half):
                out = module.codec(draw.clip, draw.rate, **draw.conditions)
                loss = module.loss(module.terms(draw, out))
            loss.backward()
            if kind == "cuda":
                torch.cuda.synchronize()

        return run

    ways = {"bfloat16": step("highest", True)}
    if kind == "cuda":
        ways["TF32"] = step("high", False)
        ways["bfloat16 and TF32"] = step("high", True)
    for way, run in ways.items():
        *_, ratio = alternating(run, step("highest", False), repeats)
        yield Figure(f"a step in {way}, {name}", ratio, "of float32's", note=note)


def _optimizer(name: str, module: CodecModule, repeats: int, device: str) -> Figure:
    weights = [p for p in module.codec.parameters() if p.grad is not None]
    one = adamw([{"params": weights}], lr=1e-5, weight_decay=0.01)
    several = torch.optim.AdamW(weights, lr=1e-5, weight_decay=0.01)

    def stepping(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        def run() -> None:
            for _ in range(5):
                optimizer.step()
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    *_, ratio = alternating(stepping(one), stepping(several), 3 * repeats)
    count = sum(weight.numel() for weight in weights)
    note = f"{count / 1e6:.1f} M weights, {device}"
    return Figure(f"AdamW in one kernel, {name}", ratio, "of torch's own", note=note)
