"""VideoVAE's training: its loss with LPIPS, and what each stage trains."""

import re

import pytest
import torch

from lightning_modules.lpips_network import load_network
from lightning_modules.perceptual import Lpips, UnavailableMetricError
from lightning_modules.stages import Stage

VAE = Stage("vae", 1, 5, trainable=["backbone"], weights={"rate": 0.0})
LATENT = Stage("latent_codec", 1, 5, trainable=["latent_codec"])


def step(video_vae, trained, stage=None):
    if stage:
        trained.start_stage(stage, 0, 1, 0)
    draw = trained.draw(video_vae.scene(5)[None], torch.arange(1), training=True)
    out = trained.codec(draw.clip, draw.rate, **draw.conditions)
    return draw, out, trained.terms(draw, out)


@pytest.mark.parametrize(("scale", "factor"), [("255", 255**2), ("sum01", 3 * 32 * 40)])
def test_the_loss_is_the_papers(video_vae, scale, factor):
    trained = video_vae.module(lmbda=0.1, alpha=2e-3, beta=0.5, mse_scale=scale)
    draw, out, terms = step(video_vae, trained)
    error = (out.x_hat - draw.clip).square().mean()
    lpips = Lpips("random")(out.x_hat, draw.clip)
    wanted = {
        "rate": out.bits.sum() / (5 * 32 * 40),
        "distortion": 0.1 * 2e-3 * factor * error,
        "lpips": 0.1 * 0.5 * lpips.mean(),
    }
    assert terms.keys() == wanted.keys() == trained.term_weights.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(trained.loss(terms), sum(wanted.values()))


def test_the_first_stage_trains_the_vae_on_its_own_latent(video_vae):
    trained = video_vae.module()
    draw, out, terms = step(video_vae, trained, VAE)
    vae = trained.codec.backbone
    padded = torch.nn.functional.pad(draw.clip, (0, 24, 0, 0, 0, 0), mode="replicate")
    torch.testing.assert_close(out.x_hat, vae.decode(vae.encode(padded))[..., :40])
    assert not out.bits.any()
    # Equation 1 has no lambda.
    error = (out.x_hat - draw.clip).square().mean()
    torch.testing.assert_close(terms["distortion"], 1e-3 * 255**2 * error)
    trained.loss(terms).backward()
    assert all(p.grad is None for p in trained.codec.latent_codec.parameters())
    assert all(p.grad is not None for p in vae.parameters())
    validation = trained.draw(video_vae.scene(5)[None], torch.arange(1), training=False)
    assert bool(validation.conditions["uncoded"])


def test_the_second_stage_costs_the_vae_no_gradients(video_vae):
    trained = video_vae.module()
    latents = []
    encoder = trained.codec.backbone.encoder
    encoder.register_forward_hook(lambda *_: latents.append(_[-1].requires_grad))
    _, _, terms = step(video_vae, trained, LATENT)
    trained.loss(terms).backward()
    assert latents == [False]
    assert all(p.grad is None for p in trained.codec.backbone.parameters())
    # Only through the decoder of the VAE.
    synthesis = trained.codec.latent_codec.decoder.parameters()
    assert all(p.grad is not None and p.grad.any() for p in synthesis)
    step(video_vae, trained, Stage("all", 1, 5))
    assert latents == [False, True]


def test_a_stage_without_bits_cannot_train_the_latent_codec(video_vae):
    with pytest.raises(ValueError, match=r"'vae'.*trainable to \[backbone\]"):
        video_vae.module().start_stage(Stage("vae", 1, 5, weights={"rate": 0}), 0, 1, 0)


def test_a_stage_of_shorter_groups_than_are_coded_is_warned_of(video_vae):
    trained = video_vae.module(frames_per_unit=9)
    with pytest.warns(UserWarning, match="groups of 5 frames, but 9 will be coded"):
        trained.start_stage(LATENT, 0, 1, 0)


def test_only_matrices_and_kernels_decay(video_vae):
    trained = video_vae.module(weight_decay=0.3)
    trained.start_stage(LATENT, 0, 1, 0)
    groups = trained.configure_optimizers()["optimizer"].param_groups
    decays = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    names = dict(trained.codec.latent_codec.named_parameters())
    assert len(decays) == len(names)
    for name, parameter in names.items():
        kernel = parameter.ndim > 1 and not name.startswith("prior.")
        assert decays[id(parameter)] == (0.3 if kernel else 0.0)


def test_lpips_is_no_part_of_the_model(video_vae):
    trained = video_vae.module()
    names = set(trained.state_dict())
    _, _, terms = step(video_vae, trained)
    terms["lpips"].backward()
    trained.train()
    assert set(trained.state_dict()) == names
    assert not any("perceptual" in n or "lin" in n.split(".") for n in names)
    network = trained.losses.lpips.network
    assert not any(p.requires_grad for p in network.parameters())
    assert not any(m.training for m in network.modules())


def test_missing_weights_stop_a_stage_that_needs_them(video_vae, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    trained = video_vae.module(lpips="vgg")
    place = re.escape(str(tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"))
    trained.start_stage(LATENT, 0, 1, 0)
    with pytest.raises(UnavailableMetricError, match=f"{place}.*--model.lpips random"):
        trained.setup("fit")
    without = video_vae.module(lpips="vgg", beta=0.0)
    without.start_stage(LATENT, 0, 1, 0)
    without.setup("fit")


def test_the_stand_in_is_the_same_every_time():
    torch.manual_seed(0)
    a, b = torch.rand(2, 2, 3, 32, 32)
    after = torch.rand(1)
    torch.manual_seed(0)
    torch.rand(2, 2, 3, 32, 32)
    load_network.cache_clear()
    first = Lpips("random")(a, b)
    # Nor does it disturb anything else that is random.
    assert torch.equal(torch.rand(1), after)
    load_network.cache_clear()
    assert torch.equal(Lpips("random")(a, b), first)
    assert (first > 0).all()
    assert not Lpips("random")(a, a).any()


def test_lpips_has_finite_gradients_where_features_are_zero():
    distance = Lpips("random")
    features = [torch.zeros(1, 4, 2, 2, requires_grad=True)]
    from lightning_modules.perceptual import _unit

    _unit(features[0]).sum().backward()
    assert features[0].grad.isfinite().all()
    x_hat = torch.zeros(1, 3, 32, 32, requires_grad=True)
    distance(x_hat, torch.rand(1, 3, 32, 32)).sum().backward()
    assert x_hat.grad.isfinite().all() and x_hat.grad.any()
