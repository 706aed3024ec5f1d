"""Transforms that begin as cosine transforms show clips before any training."""

import pytest
import torch
from torch.nn.functional import interpolate

from lightning_modules import VideoVAE
from lightning_modules.video_vae.cosines import _frequencies, _variances
from lightning_modules.video_vae.wavelets import FRAME_AXES, PAIR_AXES


@pytest.fixture(scope="module")
def clip():
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 3, 6, 6, generator=generator)
    large = interpolate(coarse, (144, 144), mode="bicubic").clamp(0, 1)
    return torch.stack([large[0, :, t : t + 128, t : t + 128] for t in range(5)])


def module(lmbda=2.0, **arguments):
    torch.manual_seed(0)
    arguments = {"size": "mini", "backbone": "lean_vae", "halvings": 0, **arguments}
    return VideoVAE(lmbda=lmbda, frames_per_unit=5, lpips="random", **arguments)


def shown(trained, clip):
    codec = trained.codec.eval()
    with torch.inference_mode():
        out = codec(clip[None], torch.tensor([codec.rate_knob.high]))
    return -10 * (clip - out.x_hat).square().mean().log10().item(), out


@pytest.mark.parametrize(
    ("halvings", "channels", "size", "least"),
    [(0, 128, "mini", 31), (1, 256, "mini", 27.5), (2, 512, "tiny", 22)],
)
def test_an_untrained_codec_shows_the_clip_better_the_higher_its_rate(
    clip, halvings, channels, size, least
):
    quality = []
    bits = []
    for lmbda in (0.1, 1.0, 10.0):
        options = {"size": size, "halvings": halvings, "channels": channels}
        psnr, out = shown(module(lmbda, initial="cosines", **options), clip)
        quality.append(psnr)
        bits.append(out.bits.sum())
    assert quality == sorted(quality)
    assert bits == sorted(bits)
    assert quality[0] > 17
    # What so many frequencies of the block can show, less what a step takes.
    assert quality[2] > least


def test_a_random_start_shows_nothing(clip):
    assert shown(module(), clip)[0] < 15


@pytest.mark.parametrize("z_prior", ["bottleneck", "scalar"])
def test_zeros_of_z_cost_little(clip, z_prior):
    _, out = shown(module(initial="cosines", z_prior=z_prior), clip)
    symbols = 2 * 32 * 4 * 4
    assert 0 < out.parts["z"].sum() < 0.2 * symbols
    _, out = shown(module(z_prior=z_prior), clip)
    assert out.parts["z"].sum() > 2 * symbols


def test_the_step_follows_from_lambda_and_alpha_alone():
    def step(*args, **options):
        trained = module(*args, initial="cosines", **options)
        return trained.codec.latent_codec.decoder[0].weight[0, 0, 1, 1, 1].item()

    assert step(2.0) == pytest.approx(step(8.0) * 2)
    assert step(2.0) == pytest.approx(step(8.0, alpha=2.5e-4))
    # 18 / (2e-3 ln 2) on the scale to 255.
    assert (255 * step(2.0)) ** 2 == pytest.approx(12984, rel=1e-3)


@pytest.mark.parametrize(("frames", "axes"), [(1, FRAME_AXES), (4, PAIR_AXES)])
def test_the_frequencies_are_orthonormal_and_the_first_is_the_mean(frames, axes):
    of_bands, of_pixels = _frequencies(frames, axes)
    same = torch.eye(len(of_bands))
    torch.testing.assert_close(of_bands @ of_bands.T, same, atol=1e-5, rtol=0)
    flat = of_pixels.flatten(1)
    torch.testing.assert_close(flat @ flat.T, same, atol=1e-5, rtol=0)
    torch.testing.assert_close(flat[0], flat[0].mean().expand_as(flat[0]))
    variances = _variances(of_pixels)
    assert variances.argmax() == 0
    assert variances.min() > 0


def test_scales_begin_as_wide_as_pictures_frequencies_are():
    groups = module(initial="cosines").codec.latent_codec.context.groups
    biases = [group.aggregate[-1].bias.unflatten(0, (2, -1)) for group in groups]
    assert not any(mean.any() for mean, _ in biases)
    scales = torch.cat([scale for _, scale in biases])
    assert (scales.diff() <= 0).all()
    assert scales[0] > 10 * scales[-1]


def test_another_backbone_has_no_such_start():
    with pytest.raises(ValueError, match=r"cosines, which is a start of .* lean_vae"):
        module(size="tiny", backbone="cv_vae", initial="cosines")


def test_without_a_weight_of_errors_there_is_no_step():
    with pytest.raises(ValueError, match=r"lmbda times alpha, which is 0: set alpha"):
        module(alpha=0.0, initial="cosines")
