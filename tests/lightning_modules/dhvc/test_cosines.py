"""Transforms that begin as cosines show pictures before any training."""

import pytest
import torch
from torch.nn.functional import interpolate

from lightning_modules import DHVC
from lightning_modules.cosines import correlations, opponents
from lightning_modules.dhvc.codec import DHVCCodec
from lightning_modules.dhvc.cosines import (
    CHAINS,
    _lowest,
    start_as_cosines,
)
from lightning_modules.dhvc.walk import FrameWalk
from lightning_modules.entropy.ports import SilentPort

SHIPPED = {"size": "mini", "auxiliary": False, "steps": "learned", "missing": "spatial"}
RANGE = (8.0, 1024.0)


def begin(initial="cosines", **changed):
    torch.manual_seed(0)
    arguments = {**SHIPPED, "lmbda_range": RANGE, **changed}
    return DHVC(initial=initial, **arguments).codec.eval()


@pytest.fixture(scope="module")
def codec():
    return begin()


@pytest.fixture(scope="module")
def plain():
    """What the paper's arguments allow."""
    return begin(steps="one", missing="constant")


@pytest.fixture(scope="module")
def clip():
    """A smooth picture with a little noise, twice."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 1, 6, 6, generator=generator)
    coarse = coarse + 0.2 * torch.rand(1, 3, 6, 6, generator=generator) - 0.1
    large = interpolate(coarse, (128, 128), mode="bicubic").clamp(0.1, 0.9)
    noisy = large + 0.02 * torch.randn(large.shape, generator=generator)
    return torch.stack([noisy, noisy], dim=1)


def psnr(clip, x_hat):
    return -10 * (clip - x_hat).square().mean().log10().item()


def run(codec, clip, lmbda):
    with torch.inference_mode():
        return codec(clip, torch.full((len(clip),), lmbda))


def test_an_untrained_network_shows_the_picture_better_the_higher_its_rate(codec, clip):
    outs = [run(codec, clip[:, :1], lmbda) for lmbda in (8.0, 64.0, 1024.0)]
    quality = [psnr(clip[:, :1], out.x_hat) for out in outs]
    bits = [out.bits.item() for out in outs]
    assert quality == sorted(quality)
    assert bits == sorted(bits)
    assert bits[2] > 2 * bits[0]
    assert quality[0] > 20
    assert quality[2] > 28


def test_a_random_start_shows_nothing(clip):
    assert psnr(clip, run(begin("random"), clip, 64.0).x_hat) < 16


def test_a_picture_that_stays_costs_little_where_it_can_be_expected(codec, plain, clip):
    first, second = run(codec, clip, 64.0).bits[0].tolist()
    assert second < 0.25 * first
    first, second = run(plain, clip, 64.0).bits[0].tolist()
    assert second == pytest.approx(first)


def test_each_scale_adds_to_the_picture(codec, clip):
    network = codec.network
    pixels = 2 * clip[:, 0] - 1
    lmbda = network.embed(torch.tensor([1024.0]))
    quality = []
    with torch.inference_mode():
        observed = network.encoder(pixels, lmbda)
        for scales in range(1, 5):
            walk = FrameWalk(network, codec.coder.start, lmbda, (1, 128, 128))
            for number, feature in enumerate(observed):
                walk.step(feature if number < scales else None, SilentPort())
            quality.append(psnr(pixels / 2, walk.finish()[0] / 2))
    assert quality == sorted(quality)
    assert quality[0] > 15
    assert quality[3] > quality[0] + 5


class Listener(SilentPort):
    """Notes each latent and the deviations that its prior has."""

    def __init__(self):
        self.heard = []

    def code(self, x, of):
        self.heard.append((x, of.like))
        return super().code(x, of)


def test_priors_begin_with_the_deviations_of_photographs(codec):
    # Pictures that are distributed as the start takes photographs to be.
    generator = torch.Generator().manual_seed(2)
    planes = torch.zeros(120, 3, 64, 64)
    for colour, variance, rho in CHAINS:
        root = torch.linalg.cholesky(correlations(64, rho))
        noise = torch.randn(120, 64, 64, generator=generator)
        planes[:, colour] += variance**0.5 * (root @ noise @ root.T)
    pixels = torch.einsum("kc,nkhw->nchw", opponents(), planes)
    lmbda = codec.network.embed(torch.full((120,), 1024.0))
    walk = FrameWalk(codec.network, codec.coder.start, lmbda, (120, 64, 64))
    port = Listener()
    with torch.inference_mode():
        for feature in codec.network.encoder(pixels, lmbda):
            walk.step(feature, port)
    assert len(port.heard) == 4
    for latent, sigma in port.heard:
        found = latent.square().mean(dim=(0, 2, 3)).sqrt()
        expected = sigma.mean(dim=(0, 2, 3))
        seen = expected > 0.12
        assert seen.float().mean() > 0.5
        torch.testing.assert_close(found[seen], expected[seen], rtol=0.2, atol=0)


def test_steps_begin_with_the_root_of_lambda(codec):
    network = codec.network
    lmbdas = torch.tensor([8.0, 90.5, 1024.0])
    steps = network.scale(2)[0].log_step(network.embed(lmbdas)).exp()
    wanted = (1024.0 / lmbdas).sqrt()[:, None].expand_as(steps)
    torch.testing.assert_close(steps, wanted, rtol=0.05, atol=0)


def test_steps_of_one_begin_as_those_of_the_middle_lambda(codec, plain, clip):
    out = run(plain, clip[:, :1], 8.0)
    middle = run(codec, clip[:, :1], 90.5)
    assert abs(out.bits.item() / middle.bits.item() - 1) < 0.03


def test_what_begins_so_is_coded_as_estimated_and_decoded_as_coded(dhvc, codec, clip):
    groups, own = dhvc.coded(codec, clip[0, :, :, :50, :70])
    assert dhvc.same(dhvc.received(codec, groups), own) == [True, True]
    packets = [packet for group in groups for packet in group]
    bits = sum(8 * len(packet.payload) for packet in packets)
    estimated = sum(packet.estimated_bits for packet in packets)
    # Beside the symbols: at most 5 bytes of a head and 8 of a stream's end.
    assert 0.98 * estimated < bits < 1.02 * estimated + 8 * 13 * len(packets)


def test_a_lost_scale_spoils_frames_until_it_begins_anew(dhvc, codec):
    again = lambda number: 2 if number == 3 else 0  # noqa: E731
    groups, own = dhvc.coded(codec, dhvc.scene(5), resync=again)
    shown = dhvc.received(codec, groups, {(2, 2)})
    assert dhvc.same(shown, own) == [True, False, False, True, True]
    assert [received.scales for received in shown] == [4, 1, 1, 4, 4]


def test_the_frequencies_are_orthonormal_and_the_first_is_the_mean():
    level = _lowest(8, 192)
    flat = level.basis.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(192), atol=1e-5, rtol=0)
    torch.testing.assert_close(flat[0], flat[0].mean().expand(192))


@pytest.mark.parametrize(
    "changed",
    [{"structure": "dhvc1"}, {"predictor": "unet"}, {"reference": "spatial"}],
)
def test_another_network_is_refused(changed):
    codec = DHVCCodec("tiny", auxiliary=False, **changed)
    with pytest.raises(ValueError, match=r"initial: cosines is for DHVC 2\.0"):
        start_as_cosines(codec.network, (8.0, 1024.0))


def test_steps_follow_no_lambda_where_there_is_one():
    with pytest.raises(ValueError, match="steps: learned needs variable_rate: true"):
        DHVCCodec("tiny", (8, 8), variable_rate=False, steps="learned")


def test_shapes_alone_have_no_start():
    with torch.device("meta"):
        codec = begin()
    assert codec.network.like.is_meta


def test_fewer_frequencies_than_latents_leave_the_others_silent():
    """As of the tiny size, in which what ships is rehearsed."""
    block = begin(size="tiny").network.scale(2)[0]
    latents, features = block.restore.in_channels, block.prior.in_channels
    assert latents > features
    used = (block.posterior[1].weight != 0).flatten(1).any(dim=1)
    assert used.sum() == features - 1 and not used[features - 1 :].any()
    # The last feature is left to tell whether there is an earlier frame.
    assert not (block.restore.weight[:, features - 1 :] != 0).any()
