"""CV-VAE and LeanVAE: their size, shapes, causality and range."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_modules.video_vae.backbones import build_backbone
from lightning_modules.video_vae.wavelets import (
    FRAME_AXES,
    PAIR_AXES,
    haar,
    inverse_haar,
)

BACKBONES = [("cv_vae", {}), ("cv_vae", {"norm": "frame"}), ("lean_vae", {})]


def build(name="lean_vae", channels=8, **options):
    torch.manual_seed(0)
    return build_backbone(name, "tiny", channels, **options).eval()


def clip_of(frames, height=16, width=24, batch=1):
    torch.manual_seed(1)
    return torch.rand(batch, frames, 3, height, width)


@pytest.mark.parametrize(
    ("name", "size", "channels", "half_3d", "parameters", "encode", "decode"),
    [
        ("cv_vae", "paper", 4, True, 182.45e6, 2632, 7992),
        ("cv_vae", "paper", 64, True, 184.05e6, 2636, 7996),
        ("cv_vae", "paper", 128, True, 185.82e6, 2641, 8000),
        ("cv_vae", "paper", 192, True, 187.59e6, 2645, 8005),
        ("cv_vae", "paper", 128, False, 259.25e6, 3984, 9991),
        ("cv_vae", "small", 128, True, 47.36e6, 666, 2006),
        ("lean_vae", "paper", 4, True, 39.77e6, 58.8, 146.8),
        ("lean_vae", "paper", 128, True, 39.96e6, 59.2, 148.5),
        ("lean_vae", "paper", 192, True, 40.06e6, 59.3, 149.3),
    ],
)
def test_parameters_and_macs_are_those_of_the_reference(
    name, size, channels, half_3d, parameters, encode, decode
):
    with torch.device("meta"):
        backbone = build_backbone(name, size, channels, half_3d=half_3d)
        clip = torch.empty(1, 9, 3, 256, 256)
    assert backbone.channels == channels
    assert sum(p.numel() for p in backbone.parameters()) == pytest.approx(
        parameters, rel=0.01
    )
    kmacs = []
    latent = clip
    with torch.no_grad():
        for run in (backbone.encode, backbone.decode):
            with FlopCounterMode(display=False) as counter:
                latent = run(latent)
            kmacs.append(counter.get_total_flops() / 2 / (9 * 256 * 256) / 1e3)
    assert kmacs == pytest.approx([encode, decode], rel=0.01)


@pytest.mark.parametrize(("name", "options"), BACKBONES)
@pytest.mark.parametrize("frames", [1, 5, 9, 17])
@torch.no_grad()
def test_a_clip_of_4n_plus_1_frames_comes_back(name, options, frames):
    backbone = build(name, **options)
    latent = backbone.encode(clip_of(frames))
    assert latent.shape == (1, 8, 1 + frames // 4, 2, 3)
    assert backbone.decode(latent).shape == (1, frames, 3, 16, 24)


@pytest.mark.parametrize(("name", "options"), BACKBONES)
@torch.no_grad()
def test_clips_of_a_batch_do_not_mix(name, options):
    backbone = build(name, **options)
    clip = clip_of(5, batch=2)
    latent = backbone.encode(clip)
    alone = backbone.encode(clip[1:])
    torch.testing.assert_close(latent[1:], alone, rtol=1e-4, atol=1e-5)
    decoded = backbone.decode(latent)[1:]
    torch.testing.assert_close(decoded, backbone.decode(alone), rtol=1e-4, atol=1e-5)


def leak(run, x, frames, results):
    """How much of the change of the last result the earlier ones suffer."""
    changed = x.clone()
    changed[(slice(None),) * frames[0] + (slice(*frames[1:]),)] += 0.3
    difference = (run(x) - run(changed)).abs()
    early = difference.narrow(results[0], 0, results[1])
    late = difference.narrow(
        results[0], results[1], difference.shape[results[0]] - results[1]
    )
    assert late.max() > 0
    return float(early.max() / late.max())


@torch.no_grad()
def test_leanvae_never_sees_a_later_frame():
    backbone = build()
    clip = clip_of(9)
    # Frames 5 to 8 are the third latent step, and the other way round.
    assert leak(backbone.encode, clip, (1, 5, 9), (2, 2)) == 0
    latent = torch.randn(1, 8, 3, 2, 3)
    assert leak(backbone.decode, latent, (2, 2, 3), (1, 5)) == 0


@torch.no_grad()
def test_leanvae_sees_earlier_frames():
    backbone = build()
    clip = clip_of(9)
    changed = clip.clone()
    changed[:, 0] += 0.3
    difference = (backbone.encode(clip) - backbone.encode(changed)).abs()
    assert (difference.amax((0, 1, 3, 4)) > 0).all()


@torch.no_grad()
def test_cvvae_sees_later_frames_through_its_normalisation_only():
    clip = clip_of(9)
    for half_3d in (True, False):
        options = {"half_3d": half_3d}
        by_frame = build("cv_vae", norm="frame", **options)
        assert leak(by_frame.encode, clip, (1, 5, 9), (2, 2)) == 0
    by_clip = build("cv_vae", norm="clip")
    assert leak(by_clip.encode, clip, (1, 5, 9), (2, 2)) > 0.01
    # Nothing but the statistics differs: the weights are of the same names.
    by_frame.load_state_dict(build("cv_vae", half_3d=False).state_dict())


@torch.no_grad()
def test_normalising_by_frame_is_normalising_a_clip_of_one_frame():
    by_clip, by_frame = build("cv_vae"), build("cv_vae", norm="frame")
    clip = clip_of(1)
    assert_same = torch.testing.assert_close
    assert_same(by_frame.encode(clip), by_clip.encode(clip))
    norm = by_frame.encoder.levels[0][0].norm1
    x = torch.randn(2, norm.num_channels, 3, 4, 5)
    alone = [nn.GroupNorm.forward(norm, frame) for frame in x.unbind(2)]
    assert_same(norm(x), torch.stack(alone, dim=2))


@torch.no_grad()
def test_the_cvvae_decoder_is_not_causal():
    backbone = build("cv_vae", norm="frame")
    latent = torch.randn(1, 8, 3, 2, 3)
    assert leak(backbone.decode, latent, (2, 2, 3), (1, 5)) > 0.01


@pytest.mark.parametrize(
    ("name", "low", "high"), [("cv_vae", -1.0, 1.0), ("lean_vae", -0.5, 0.5)]
)
def test_each_network_sees_its_own_range(name, low, high):
    backbone = build(name)
    seen = []
    backbone.encoder.forward = lambda clip, run: seen.append(clip) or clip
    backbone.decoder.forward = lambda latent, *_: latent
    clip = torch.rand(1, 5, 3, 8, 8)
    clip.view(-1)[:2] = torch.tensor([0.0, 1.0])
    backbone.encode(clip)
    assert (float(seen[0].min()), float(seen[0].max())) == (low, high)
    ranged = seen[0].new_zeros(1, backbone.channels, 5, 8, 8)
    ranged[:, :3] = seen[0]
    torch.testing.assert_close(backbone.decode(ranged)[:, :, :3], clip)


@torch.no_grad()
def test_nothing_is_clamped():
    backbone = build("lean_vae")
    decoded = backbone.decode(100 * torch.randn(1, 8, 2, 2, 3))
    assert decoded.min() < 0 and decoded.max() > 1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 4, 3, 16, 16), "4 frames"),
        ((1, 11, 3, 16, 16), "11 frames.*4 n \\+ 1"),
        ((1, 5, 3, 20, 16), "16x20.*multiples of 8"),
        ((1, 5, 3, 16, 12), "12x16"),
        ((1, 5, 3, 0, 16), "16x0"),
        ((1, 3, 5, 16, 16), "not \\(B, T, 3, H, W\\)"),
        ((5, 3, 16, 16), "not \\(B, T, 3, H, W\\)"),
    ],
)
def test_a_clip_that_cannot_be_coded_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        build().encode(torch.zeros(shape))


def test_a_latent_of_another_backbone_is_refused():
    with pytest.raises(ValueError, match=r"\(1, 4, 3, 2, 2\) is not \(B, 8"):
        build().decode(torch.zeros(1, 4, 3, 2, 2))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("vqvae", "tiny", 8), {}, "'vqvae'.*cv_vae, lean_vae"),
        (("cv_vae", "huge", 8), {}, "'huge'.*paper, small, mini, tiny"),
        (("cv_vae", "tiny", 0), {}, "channels 0"),
        (("cv_vae", "tiny", 8), {"norm": "batch"}, "'batch'.*clip or frame"),
        (("lean_vae", "tiny", 8), {"norm": "frame"}, "options of cv_vae"),
        (("lean_vae", "tiny", 8), {"half_3d": False}, "options of cv_vae"),
    ],
)
def test_an_impossible_backbone_is_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(*arguments, **options)


@pytest.mark.parametrize(("name", "options"), BACKBONES)
def test_recomputed_activations_give_the_same_gradients(name, options):
    backbone = build(name, **options)
    clip = clip_of(5)
    gradients = []
    for recompute in (False, True):
        backbone.zero_grad()
        backbone.checkpoint_activations = recompute
        (backbone.decode(backbone.encode(clip)) - clip).square().mean().backward()
        gradients.append([p.grad.clone() for p in backbone.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", ["cv_vae", "lean_vae"])
def test_recomputing_keeps_less_for_the_backward_pass(name):
    backbone = build(name)
    sizes = []
    for recompute in (False, True):
        backbone.checkpoint_activations = recompute
        kept = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda x, kept=kept: kept.append(x.numel()) or x, lambda x: x
        )
        with hooks:
            backbone.decode(backbone.encode(clip_of(5)))
        sizes.append(sum(kept))
    assert sizes[1] < sizes[0] / 3


@pytest.mark.parametrize("name", ["cv_vae", "lean_vae"])
def test_gradients_reach_every_weight_and_the_clip(name):
    backbone = build(name)
    clip = clip_of(9).requires_grad_()
    backbone.decode(backbone.encode(clip)).square().mean().backward()
    assert clip.grad.abs().amax((0, 2, 3, 4)).min() > 0
    for key, parameter in backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key


def test_leanvae_learns_within_a_few_steps():
    backbone = build()
    clip = clip_of(5)
    clip = F.interpolate(clip[0], scale_factor=2, mode="bilinear")[None]
    optimizer = torch.optim.Adam(backbone.parameters(), 2e-3)
    losses = []
    for _ in range(30):
        loss = (backbone.decode(backbone.encode(clip)) - clip).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def signed_sums(axes):
    """Kernels of all bands over (time, height, width), written out sample by sample."""
    sides = [2 if axis in axes else 1 for axis in (-3, -2, -1)]
    kernels = []
    for band in range(2 ** len(axes)):
        # The first axis is the highest bit of the band's number.
        bits = {a: band >> (len(axes) - 1 - i) & 1 for i, a in enumerate(axes)}
        kernel = torch.ones(sides)
        for index in torch.ones(sides).nonzero().tolist():
            odd = sum(
                bits.get(axis, 0) * i
                for axis, i in zip((-3, -2, -1), index, strict=True)
            )
            kernel[tuple(index)] = -1.0 if odd % 2 else 1.0
        kernels.append(kernel)
    return torch.stack(kernels)[:, None], sides


@pytest.mark.parametrize("axes", [FRAME_AXES, PAIR_AXES])
def test_wavelet_bands_are_signed_sums_and_can_be_undone(axes):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 6, 8)
    kernels, sides = signed_sums(axes)
    bands = F.conv3d(x.flatten(0, 1)[:, None], kernels, stride=sides)
    # Each band has the three colours.
    expected = bands.unflatten(0, (2, 3)).transpose(1, 2).flatten(1, 2)
    result = haar(x, axes)
    torch.testing.assert_close(result, expected)
    lowest = F.avg_pool3d(x, sides) * 2 ** len(axes)
    torch.testing.assert_close(result[:, :3], lowest)
    torch.testing.assert_close(inverse_haar(result, axes), x)
