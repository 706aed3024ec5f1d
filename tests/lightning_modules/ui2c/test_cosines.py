"""Transforms that begin as cosine transforms show pictures before any training."""

import pytest
import torch
from torch.nn.functional import interpolate

from lightning_modules import UI2C
from lightning_modules.cosines import quarters
from lightning_modules.ui2c.cosines import _basis


def smooth_clip(frames):
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 3, 6, 6, generator=generator)
    large = interpolate(coarse, (80, 96), mode="bicubic").clamp(0, 1)
    return torch.stack([large[0, :, t : t + 64, t : t + 64] for t in range(frames)])


def psnr(clip, x_hat):
    return -10 * (clip - x_hat).square().mean().log10().item()


# A single frame's patch of the paper's size has fewer samples than features.
@pytest.mark.parametrize(
    ("size", "frames_per_unit"), [("small", 1), ("small", 2), ("paper", 1)]
)
def test_an_untrained_network_shows_the_picture_better_the_higher_its_rate(
    size, frames_per_unit
):
    torch.manual_seed(0)
    module = UI2C(size=size, frames_per_unit=frames_per_unit, initial="cosines")
    clip = smooth_clip(frames_per_unit)[None]
    quality = []
    for qp in (0, 21, 42, 63):
        with torch.inference_mode():
            out = module.codec.eval()(clip, torch.tensor([float(qp)]))
        quality.append(psnr(clip, out.x_hat))
    assert quality == sorted(quality)
    assert quality[0] > 17
    assert quality[3] > 30


def test_a_random_start_shows_nothing():
    torch.manual_seed(0)
    module = UI2C(size="small", frames_per_unit=1)
    clip = smooth_clip(1)[None]
    with torch.inference_mode():
        out = module.codec.eval()(clip, torch.tensor([42.0]))
    assert psnr(clip, out.x_hat) < 15


def test_the_frequencies_are_orthonormal_and_the_first_is_the_mean():
    basis, variances = _basis((2, 16, 16), 192)
    torch.testing.assert_close(basis @ basis.T, torch.eye(192), atol=1e-5, rtol=0)
    luma = basis[0].reshape(2, 3, 16, 16)[:, 0]
    torch.testing.assert_close(luma, luma.mean().expand_as(luma))
    assert variances[0] == variances.max()


def test_patches_are_ordered_as_pixel_unshuffle_orders_them():
    clip = torch.arange(2 * 3 * 16 * 16.0).reshape(1, 6, 16, 16)
    patches = torch.pixel_unshuffle(clip, 8)[0]
    features = patches.permute(1, 2, 0).flatten()
    torch.testing.assert_close(quarters(6, 16) @ clip.flatten(), features)


def test_scales_begin_as_wide_as_pictures_frequencies_are():
    module = UI2C(size="small", frames_per_unit=1, initial="cosines")
    bias = module.codec.network.fusion[-1].bias
    step, scale, mean = bias.chunk(3)
    assert (step == 1).all() and (mean == 0).all()
    _, variances = _basis((1, 16, 16), 192)
    strongest, weakest = variances.argmax(), variances.argmin()
    assert scale[strongest] == scale.max() > 10 * scale[weakest]
    torch.testing.assert_close(module.codec.network.spatial_prior[-1].bias[:192], scale)
