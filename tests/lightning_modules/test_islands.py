"""Islands of float32 in training to bfloat16: each is there, and seen if it is not."""

import re
from contextlib import nullcontext

import pytest
import torch
from torch.overrides import TorchFunctionMode

import lightning_modules
from lightning_modules import float32
from lightning_modules.dual_domain import experts, flow
from lightning_modules.entropy import estimates, priors
from lightning_modules.entropy.ports import EstimatePort
from lightning_modules.stages import Stage
from lightning_modules.video_vae import lean_vae

LOWER = re.compile(r"conv(_transpose)?\dd|linear|_*r?matmul_*|bmm|scaled_dot_product.*")
FULL = re.compile(
    r"(layer|group)_norm|(log_)?softmax|log\w*|exp|expm1|_*pow_*|sum|prod|softplus"
)
DIGITS = re.compile(r"round|grid_sample(r.*)?|erfc|topk|argmax|expm1|logsigmoid|floor")
"""What needs more digits than bfloat16 has: rounding, places, masses, choices."""


class CudaAutocast(TorchFunctionMode):
    """Autocast's rules for CUDA on a CPU: rounded factors, sums in float32.

    A processor's own rules cast other functions, and its 3-D kernels have wrong
    gradients in bfloat16. ``poor`` names functions that were given too few digits.
    """

    def __init__(self):
        super().__init__()
        self.poor = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        given = [x for x in args if isinstance(x, torch.Tensor)]
        if DIGITS.fullmatch(name) and any(x.dtype == torch.bfloat16 for x in given):
            self.poor.add(name)
        casting = torch.is_autocast_enabled("cpu")
        if not casting or not (LOWER.fullmatch(name) or FULL.fullmatch(name)):
            with torch.autocast("cpu", enabled=False) if casting else nullcontext():
                return func(*args, **kwargs)
        lower = bool(LOWER.fullmatch(name))

        def cast(x):
            if not isinstance(x, torch.Tensor) or not x.is_floating_point():
                return x
            return (x.bfloat16() if lower else x).float()

        with torch.autocast("cpu", enabled=False):
            result = func(*map(cast, args), **{k: cast(v) for k, v in kwargs.items()})
        return result.bfloat16() if lower else result


ISLANDS = {
    "UI2C": [r"network\.encoder_down", r"network\.decoder_up\.0"],
    "UI2C divided": [r"intra\.encoder\.1", r"intra\.decoder\.0\.0\.0"],
    "DHVC": [
        r"network\.embedding\.layers\.[02]",
        r"network\.scale[1-4]\.\d\.(posterior\.1|restore)",
    ],
    "DualDomain": [
        r"network\.encoder\.6",
        r"network\.decoder\.0\.0",
        r"network\.(en|de)coder_steps\.experts\.(expert_in|expert_out|film)",
        r"network\.(en|de)coder_steps\.experts\.router_(in|quality|out\.[13])",
        r"network\.flow\.levels\.\d\.8",
        r"network\.motion_encoder\.encoder\.[06]",
        r"network\.motion_decoder\.decoder\.[06]\.0",
        r"network\.alignment\.layers\.\d\.attention\.offset_net\.6",
    ],
    "VideoVAE cv_vae": [r"latent_codec\.encoder\.7", r"latent_codec\.decoder\.0"],
    "VideoVAE lean_vae": [r"latent_codec\.encoder\.7", r"latent_codec\.decoder\.0"],
}
"""Layers that read or write what bfloat16 would round too much, by codec."""

OPTIONS = {
    "divided": {"divided": True, "frames_per_unit": 1},
    "cv_vae": {"backbone": "cv_vae", "lpips": "random", "frames_per_unit": 5},
    "lean_vae": {"backbone": "lean_vae", "lpips": "random", "frames_per_unit": 5},
}


@pytest.fixture(scope="module")
def clip():
    generator = torch.Generator().manual_seed(4)
    coarse = torch.rand(1, 3, 5, 8, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (5, 64, 64), mode="trilinear")
    return smooth.transpose(1, 2)


@pytest.fixture(params=ISLANDS)
def module(request):
    name, _, option = request.param.partition(" ")
    torch.manual_seed(1)
    options = {"size": "tiny", **OPTIONS.get(option, {})}
    module = getattr(lightning_modules, name)(**options).train()
    frames = max(3, module.codec.frames_per_unit)
    module.start_stage(Stage("all", 1, frames), 0, 1, 0)
    return module


def drawn(module, clip):
    frames = clip[:, : module.stage.frames]
    return module.draw(frames, torch.arange(len(clip)), training=True)


def train(module, clip):
    """Return the output and the loss of a step as a GPU takes it, and who watched."""
    draw = drawn(module, clip)
    codec = module.codec
    with torch.autocast("cpu", dtype=torch.bfloat16), CudaAutocast() as mode:
        # VideoVAE's own code, without what it does on processors.
        if isinstance(module, lightning_modules.VideoVAE):
            out = codec._forward(draw.clip, draw.conditions)
        else:
            out = codec(draw.clip, draw.rate, **draw.conditions)
        loss = module.loss(module.terms(draw, out))
    return out, loss, mode


def probed(codec):
    """Note the dtypes that come in and go out of each layer with weights."""
    seen = {}

    def hook(name):
        def note(layer, inputs, output):
            seen.setdefault(name, set()).update({inputs[0].dtype, output.dtype})

        return note

    for name, layer in codec.named_modules():
        if hasattr(layer, "weight"):
            layer.register_forward_hook(hook(name))
    return seen


def poor_layers(seen, patterns):
    """Return which of the layers that are islands saw less than float32."""
    islands = {n for n in seen if any(re.fullmatch(p, n) for p in patterns)}
    for pattern in patterns:
        assert any(re.fullmatch(pattern, name) for name in seen), pattern
    return {name for name in islands if seen[name] != {torch.float32}}


def patterns_of(module):
    codec = module.codec
    name = codec.shown_name
    names = [each for each in ISLANDS if each.partition(" ")[0] == name]
    if len(names) == 1:
        return ISLANDS[name]
    if name == "UI2C":
        return ISLANDS["UI2C divided" if codec.intra is not None else "UI2C"]
    return ISLANDS[f"{name} {codec.architecture['backbone']}"]


def test_islands_are_in_float32_and_the_sea_is_not(module, clip):
    seen = probed(module.codec)
    out, loss, mode = train(module, clip)
    assert not poor_layers(seen, patterns_of(module))
    assert not mode.poor
    dtypes = [seen[name] for name in seen]
    assert sum(torch.bfloat16 in each for each in dtypes) > len(dtypes) / 4
    assert out.x_hat.dtype == out.bits.dtype == loss.dtype == torch.float32


def test_without_islands_each_layer_would_be_seen(module, clip, monkeypatch):
    monkeypatch.setattr(float32, "island_dtype", lambda like: like.dtype)
    for place in (float32, experts):
        monkeypatch.setattr(place, "without_autocast", lambda x: nullcontext())
    seen = probed(module.codec)
    with torch.no_grad():
        train(module, clip)
    patterns = patterns_of(module)
    islands = {n for n in seen if any(re.fullmatch(p, n) for p in patterns)}
    assert poor_layers(seen, patterns) == islands


def test_a_step_is_that_of_float32_but_for_little(module, clip):
    draw = drawn(module, clip)
    out = module.codec(draw.clip, draw.rate, **draw.conditions)
    module.loss(module.terms(draw, out)).backward()
    exact = [p.grad.clone() for p in module.codec.parameters() if p.grad is not None]
    module.zero_grad()
    other, loss, _ = train(module, clip)
    loss.backward()
    rounded = [p.grad for p in module.codec.parameters() if p.grad is not None]
    assert len(exact) == len(rounded)
    dots = sum(float((a * b).sum()) for a, b in zip(exact, rounded, strict=True))
    norms = [sum(float(g.square().sum()) for g in grads) for grads in (exact, rounded)]
    assert dots / (norms[0] * norms[1]) ** 0.5 > 0.98
    with torch.no_grad():
        assert float(other.bits.sum() / out.bits.sum()) == pytest.approx(1, abs=0.02)
        # Of networks that have not trained, whose pictures lie far from any.
        assert float((other.x_hat - out.x_hat).square().mean()) < 0.05**2


OBJECTIVES = {
    "flow": {"rate": 0.0, "distortion": 0.0},
    "image": {},
    "motion": {},
    "prior": {"distortion": 0.0},
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objectives_of_dual_domain_have_all_digits(lively_module, clip, objective):
    module = lively_module("DualDomain").train()
    row = {"options": {"objective": objective}, "weights": OBJECTIVES[objective]}
    module.start_stage(Stage("one", 1, 3, **row), 0, 1, 0)
    seen = probed(module.codec)
    _, loss, mode = train(module, clip)
    assert loss.isfinite() and not mode.poor
    known = [p for p in ISLANDS["DualDomain"] if any(re.fullmatch(p, n) for n in seen)]
    assert known and not poor_layers(seen, known)


def half(*shape):
    return torch.randn(shape).bfloat16()


BREAKABLE = {
    "a hyper-latent is rounded": (
        lambda: EstimatePort(torch.arange(1)).code(
            half(1, 4, 4, 4), _factorised(priors.FactorisedPrior(1, 4))
        ),
        [(float32, "island_dtype", lambda like: like.dtype)],
    ),
    "places are sampled": (
        lambda: flow.warp(half(1, 1, 4, 4), half(1, 2, 4, 4)),
        [(flow, "at_least_float32", lambda x: x)],
    ),
    "masses are subtracted": (
        lambda: estimates.gaussian_bits(half(4), half(4).abs() + 1),
        [(torch.Tensor, "float", lambda x: x)],
    ),
}


def _factorised(prior):
    from lightning_modules.entropy.distributions import Factorised

    return Factorised(prior, (1, 4, 4, 4))


@pytest.mark.parametrize("what", BREAKABLE)
def test_what_needs_digits_has_them_and_its_lack_is_seen(what, monkeypatch):
    run, broken = BREAKABLE[what]
    with torch.autocast("cpu", dtype=torch.bfloat16), CudaAutocast() as mode:
        run()
    assert not mode.poor
    for place, name, value in broken:
        monkeypatch.setattr(place, name, value)
    with torch.autocast("cpu", dtype=torch.bfloat16), CudaAutocast() as mode:
        run()
    assert mode.poor


def test_slopes_of_steps_are_those_of_float32(lively_module, monkeypatch):
    steps = lively_module("DualDomain").codec.network.encoder_steps
    content, quality = torch.randn(1, steps.gain.points.shape[1], 4, 4), torch.ones(1)
    weighed = frozenset({"monotonicity", "router_z", "load_balance"})

    def terms():
        return experts.regularisers([(steps, content)], quality, weighed)

    exact = terms()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert terms() == exact
        for place in (float32, experts):
            monkeypatch.setattr(place, "without_autocast", lambda x: nullcontext())
        assert terms() != exact


def test_bands_are_added_in_float32(monkeypatch):
    network = lean_vae.LeanVAE(4, lean_vae.LEAN_VAE_WIDTHS["tiny"])
    seen = []
    inverse = lean_vae.inverse_haar

    def noting(bands, axes):
        seen.append(bands.dtype)
        return inverse(bands, axes)

    monkeypatch.setattr(lean_vae, "inverse_haar", noting)
    with torch.autocast("cpu", dtype=torch.bfloat16), CudaAutocast():
        clip = network.decode(torch.randn(1, 4, 2, 2, 2))
    assert set(seen) == {torch.float32} == {clip.dtype}


def test_validation_computes_as_files_are_coded(lively_module, clip):
    module = lively_module("UI2C").eval()
    module.start_stage(Stage("all", 1, 3), 0, 1, 0)
    batch = {"clip": clip[:, :2], "index": torch.arange(1), "name": ["clip"]}
    with torch.no_grad():
        exact = module.validation_step(batch, 0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = module.validation_step(batch, 0)
            draw = module.draw(batch["clip"], batch["index"], training=False)
            rounded = module.codec(draw.clip, torch.zeros(1))
    for own, other in zip(exact, found, strict=True):
        assert torch.equal(own.x_hat, other.x_hat) and torch.equal(own.bits, other.bits)
    assert not torch.equal(rounded.bits, exact[0].bits)
