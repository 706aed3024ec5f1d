"""Transforms that begin as cosine transforms show pictures before any training."""

import pytest
import torch
from torch.nn.functional import interpolate

from lightning_modules import DualDomain
from lightning_modules.dual_domain.entropy_model import bounded_log_scale


def begin(size="tiny", **given):
    torch.manual_seed(0)
    module = DualDomain(size=size, step_offset="learned", **given)
    module.codec.objective = "image"
    return module.eval()


def smooth_clip(frames=1):
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 3, 6, 6, generator=generator)
    large = interpolate(coarse, (80, 96), mode="bicubic").clamp(0, 1)
    return torch.stack([large[0, :, t : t + 64, t : t + 64] for t in range(frames)])


def psnr(clip, x_hat):
    return -10 * (clip - x_hat).square().mean().log10().item()


@torch.inference_mode()
def shown(module, quality):
    return module.codec(smooth_clip()[None], torch.tensor([quality]))


# In tiny, features are fewer than the second level's samples; in mini they are more.
@pytest.mark.parametrize(("size", "least"), [("tiny", 20), ("mini", 28)])
def test_an_untrained_network_shows_the_picture_better_the_higher_its_rate(size, least):
    module = begin(size, initial="cosines")
    outs = [shown(module, quality) for quality in (0.0, 0.33, 0.67, 1.0)]
    quality = [psnr(smooth_clip()[None], out.x_hat) for out in outs]
    assert quality == sorted(quality)
    assert quality[0] > least - 4 and quality[-1] > least


def test_a_random_start_shows_nothing():
    assert psnr(smooth_clip()[None], shown(begin(), 1.0).x_hat) < 15


def test_a_transform_is_inverted_where_features_suffice():
    network = begin("mini", initial="cosines").codec.network
    smooth = smooth_clip()
    # Frequencies that the latent has: what it shows, it shows again.
    once = network.decoder(network.encoder(smooth))
    twice = network.decoder(network.encoder(once))
    torch.testing.assert_close(twice, once, atol=1e-4, rtol=0)


def test_a_flow_passes_its_codec_and_a_quarter_of_a_pixel_is_kept():
    network = begin("mini", initial="cosines").codec.network
    flow = torch.stack([torch.full((32, 32), 3.0), torch.full((32, 32), -1.25)])[None]
    quality = torch.ones(1)
    values = network.motion_encoder(flow, quality).values
    decoder = network.motion_decoder
    back = decoder.decoder(values.round() / decoder.gain(quality))
    torch.testing.assert_close(back, flow, atol=0.1, rtol=0)


@pytest.mark.parametrize("scales", ["free", "gained"])
def test_scales_begin_as_wide_as_pictures_frequencies_are(scales):
    network = begin(initial="cosines", scales=scales).codec.network
    raw = torch.cat([each.mix[-1].bias.chunk(3)[1] for each in network.context.groups])
    deviations = bounded_log_scale(raw).exp()
    assert (deviations[:-1] >= deviations[1:] - 1e-4).all()
    assert deviations[0] > 20 * deviations[-1]
    if scales == "gained":
        gain = network.encoder_steps.gain(torch.tensor([0.5])).exp().flatten()
        other = begin(initial="cosines").codec.network.context.groups[0].mix[-1].bias
        middle = bounded_log_scale(other.chunk(3)[1]).exp()
        known = deviations[: len(middle)] * gain[: len(middle)]
        torch.testing.assert_close(known, middle, rtol=0.2, atol=0)


def test_gained_scales_cost_fewer_bits_far_from_the_middle():
    bits = {
        scales: shown(begin(initial="cosines", scales=scales), 0.0).bits.sum()
        for scales in ("free", "gained")
    }
    assert bits["gained"] < 0.9 * bits["free"]
