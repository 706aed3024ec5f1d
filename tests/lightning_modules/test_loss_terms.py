"""Terms of the loss: any row of the table, weighed by name, in a stage of any codec."""

import pytest
import torch

import lightning_modules
from lightning_modules import losses
from lightning_modules.codec import CodecOutput
from lightning_modules.draw import Draw
from lightning_modules.losses import TERMS, Term
from lightning_modules.perceptual import UnavailableMetricError
from lightning_modules.stages import Stage

CODECS = lightning_modules.CODECS
SMALL = {"VideoVAE": {"backbone": "lean_vae", "channels": 64, "frames_per_unit": 5}}


def build(name, **arguments):
    torch.manual_seed(0)
    options = {"size": "tiny", "lpips": "random", **SMALL.get(name, {}), **arguments}
    return getattr(lightning_modules, name)(**options).train()


def step(module, **row):
    """Return the terms of one step of a stage, and their sum."""
    module.start_stage(Stage("row", 1, 5, **row), 0, 1, 0)
    generator = torch.Generator().manual_seed(1)
    clip = torch.rand(1, 5, 3, 32, 32, generator=generator)
    draw = module.draw(clip, torch.arange(1), training=True)
    out = module.codec(draw.clip, draw.rate, **draw.conditions)
    terms = module.terms(draw, out)
    return draw, out, terms, module.loss(terms)


@pytest.fixture
def calls(monkeypatch):
    """Register a loss, as a row of the table; return the shapes that it was given."""
    seen = []

    def absolute(clip, x_hat):
        seen.append(clip.shape)
        return (clip - x_hat).abs().mean(dim=(-3, -2, -1))

    monkeypatch.setitem(TERMS, "absolute", Term(absolute))
    return seen


@pytest.mark.parametrize("name", CODECS)
def test_lpips_is_a_number_in_a_stage_of_any_codec(name):
    module = build(name)
    weights = {"lpips": 0.5, "rate": 1.0, "distortion": 0.25}
    draw, out, terms, loss = step(module, weights=weights)
    each = module.losses.lpips(out.x_hat, draw.clip) * draw.frame_weights
    expected = (draw.lmbda[:, None] * each).mean()
    torch.testing.assert_close(terms["lpips"], expected)
    plain = {n: t for n, t in terms.items() if n not in weights}
    total = sum(weights[n] * terms[n] for n in weights) + sum(plain.values())
    torch.testing.assert_close(loss, total)
    loss.backward()
    gradients = [p.grad for p in module.codec.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)
    # Neither trained nor saved.
    assert not any("lpips" in key or "losses" in key for key in module.state_dict())


@pytest.mark.parametrize("name", CODECS)
def test_a_new_function_is_the_distortion_of_any_codec(name, calls):
    module = build(name, distortion="absolute")
    draw, out, terms, loss = step(module)
    each = (draw.clip - out.x_hat).abs().mean(dim=(-3, -2, -1)) * draw.frame_weights
    alpha = 1e-3 if name == "VideoVAE" else 1.0
    expected = alpha * (draw.lmbda[:, None] * each).mean()
    torch.testing.assert_close(terms["distortion"], expected)
    loss.backward()
    assert calls == [draw.clip.shape]


@pytest.mark.parametrize("name", CODECS)
def test_what_has_no_weight_is_not_computed(name, calls):
    module = build(name, distortion="absolute")
    _, _, terms, _ = step(module, weights={"distortion": 0.0, "mse": 1.0})
    assert calls == [] and terms["distortion"] == 0 and terms["mse"] > 0
    module = build(name)
    terms = step(module, weights={"absolute": 0.0})[2]
    assert calls == [] and "absolute" not in terms
    terms = step(module, weights={"absolute": 1.0})[2]
    assert len(calls) == 1 and terms["absolute"] > 0
    step(module)
    assert len(calls) == 1


def test_what_does_not_count_loads_no_network(monkeypatch):
    monkeypatch.setattr(losses, "Lpips", None)
    for name in CODECS:
        step(build(name, **({"beta": 0.0} if name == "VideoVAE" else {})))
    step(build("VideoVAE"), weights={"lpips": 0.0})
    with pytest.raises(TypeError):
        step(build("VideoVAE"))


def test_terms_of_the_codec_that_have_no_weight_are_not_computed():
    module = build("DualDomain")
    routes = []
    for scale in (
        module.codec.network.encoder_steps,
        module.codec.network.decoder_steps,
    ):
        scale.experts.router_out.register_forward_hook(lambda *_: routes.append(1))
    counts = []
    off = {}
    for term in (None, "monotonicity", "router_z", "load_balance"):
        off |= {term: 0.0} if term else {}
        routes.clear()
        terms = step(module, weights=off)[2]
        assert all(terms[name] == 0 for name in off)
        counts.append(len(routes))
    # Two scales: twice for the slope of each, once for the shares of each.
    assert [counts[0] - count for count in counts] == [0, 4, 4, 6]
    off = {"weights": {"flow": 0.0}, "options": {"objective": "flow"}}
    terms = step(module, **off)[2]
    assert terms["flow"] == 0
    assert step(module, options={"objective": "flow"})[2]["flow"] > 0


@pytest.mark.parametrize("name", CODECS)
def test_an_unknown_name_lists_the_known(name):
    with pytest.raises(ValueError, match=r"'row' weighs .*'lpisp'.*'lpips'.*'rate'"):
        step(build(name), weights={"lpisp": 1.0})
    with pytest.raises(ValueError, match=r"distortion 'msse' is unknown: .*'mse'"):
        build(name, distortion="msse")


@pytest.mark.parametrize("name", CODECS)
def test_a_stage_without_any_loss_is_refused(name):
    module = build(name)
    nothing = dict.fromkeys(module.term_weights, 0.0)
    with pytest.raises(ValueError, match="'row' has no loss"):
        step(module, weights=nothing)


@pytest.mark.parametrize("name", CODECS)
def test_missing_weights_are_named_before_the_first_step(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    missing = r"vgg16-397923af\.pth.*--model\.lpips random"
    weighed = Stage("row", 1, 5, weights={"lpips": 0.5})
    for row, other in ((weighed, {}), (Stage("row", 1, 5), {"distortion": "lpips"})):
        module = build(name, lpips="vgg", **other)
        module.start_stage(row, 0, 1, 0)
        # All rows are begun before the first trains: none of them is forgotten.
        module.start_stage(Stage("next", 1, 5, weights={"rate": 0.5}), 1, 2, 1)
        with pytest.raises(UnavailableMetricError, match=missing):
            module.setup("fit")
        module.setup("test")
    module = build(name)
    module.start_stage(weighed, 0, 1, 0)
    module.setup("fit")


@pytest.mark.parametrize("training", [True, False])
def test_balance_divides_each_sample_by_its_own_lambda_in_training_alone(training):
    module = build("UI2C", frames_per_unit=1)
    out = CodecOutput(torch.zeros(2, 1, 3, 16, 16), torch.full((2, 1), 256.0))
    lmbda, ones = torch.tensor([4.0, 100.0]), torch.ones(2, 1)
    draw = Draw(torch.ones(2, 1, 3, 16, 16), torch.zeros(2), lmbda, ones)
    module.start_stage(Stage("row", 1, 1, balance=0.5), 0, 1, 0)
    terms = module.train(training).terms(draw, out)
    factors = torch.tensor([1 / 2, 1 / 10]) if training else torch.ones(2)
    assert terms["rate"].item() == pytest.approx(factors.mean().item())
    white = 3.0 * 6.0 / 8.0  # Black for white is wrong in the luma alone.
    assert terms["distortion"].item() == pytest.approx(
        (white * lmbda * factors).mean().item()
    )
