"""Coding in tiles: where tiles lie, how they blend, what it changes."""

from itertools import pairwise

import pytest
import torch

from lightning_modules.video_vae.backbones import build_backbone
from lightning_modules.video_vae.tiling import (
    Tiling,
    decode_in_tiles,
    encode_in_tiles,
    spans,
)


def build(name="lean_vae", **options):
    torch.manual_seed(0)
    backbone = build_backbone(name, "tiny", 8, **options).eval()
    if name == "lean_vae":
        # Untrained, its depthwise convolutions hardly see their neighbours.
        for module in backbone.modules():
            if isinstance(module, torch.nn.Conv3d):
                torch.nn.init.normal_(module.weight, std=0.2)
    return backbone


def smooth_clip(height, width, frames=5):
    torch.manual_seed(1)
    coarse = torch.rand(1, 3, 3, height // 8, width // 8)
    size = (frames, height, width)
    fine = torch.nn.functional.interpolate(coarse, size=size, mode="trilinear")
    return fine.transpose(1, 2).contiguous()


@pytest.mark.parametrize(("side", "overlap"), [(576, 128), (72, 0), (72, 24), (24, 8)])
def test_tiles_cover_every_length_and_weigh_one_in_sum(side, overlap):
    tiling = Tiling(side, overlap)
    for length in [*range(1, 30), 90, 135, 240]:
        for scale in (1, 8):
            total = torch.zeros(length * scale)
            for span in spans(length, tiling):
                assert span.stop - span.start == min(length, side // 8)
                own = total[span.start * scale : span.stop * scale]
                own += span.weights(scale, own)
            torch.testing.assert_close(total, torch.ones(length * scale))


def test_1080p_takes_3_by_4_tiles_that_overlap_by_at_least_what_is_asked():
    rows, columns = (spans(n // 8, Tiling()) for n in (1080, 1920))
    assert (len(rows), len(columns)) == (3, 4)
    for tiles in (rows, columns):
        for before, after in pairwise(tiles):
            assert before.stop - after.start >= 128 // 8
            assert before.fade_out == after.fade_in
            first, length = after.fade_in
            assert after.start <= first and first + length <= before.stop
            assert length == 128 // 8


def test_tiles_fade_linearly():
    before, after = spans(14, Tiling(80, 24))
    assert (before.start, before.stop, after.start, after.stop) == (0, 10, 4, 14)
    assert after.fade_in == (5, 3)
    one = torch.zeros(1)
    expected = [0.0, *(i / 6 for i in (1, 3, 5)), *[1.0] * 6]
    assert after.weights(1, one).tolist() == pytest.approx(expected)
    assert after.weights(2, one)[2:8].tolist() == pytest.approx(
        [i / 12 for i in (1, 3, 5, 7, 9, 11)]
    )


@torch.no_grad()
def test_a_picture_no_larger_than_a_tile_is_coded_whole():
    backbone = build("cv_vae")
    clip = smooth_clip(32, 48)
    tiling = Tiling(48, 16)
    latent = encode_in_tiles(backbone, clip, tiling)
    assert torch.equal(latent, backbone.encode(clip))
    assert torch.equal(
        decode_in_tiles(backbone, latent, tiling), backbone.decode(latent)
    )


@pytest.mark.parametrize("overlap", [0, 16])
def test_tiles_are_put_back_where_they_were(overlap):
    class Pooling(torch.nn.Module):
        """Exact in any tile, so that only the bookkeeping can be wrong."""

        def encode(self, clip):
            means = clip.unfold(-2, 8, 8).unfold(-2, 8, 8).mean((-1, -2))
            return means[:, ::4].transpose(1, 2)

        def decode(self, latent):
            large = latent.repeat_interleave(8, -1).repeat_interleave(8, -2)
            return large.transpose(1, 2).repeat_interleave(4, 1)[:, 3:]

    clip = torch.rand(2, 5, 3, 104, 72)
    tiling = Tiling(48, overlap)
    latent = encode_in_tiles(Pooling(), clip, tiling)
    torch.testing.assert_close(latent, Pooling().encode(clip))
    decoded = decode_in_tiles(Pooling(), latent, tiling)
    torch.testing.assert_close(decoded, Pooling().decode(latent))


@torch.no_grad()
def test_a_local_backbone_is_exact_beside_the_seams():
    # The tiny LeanVAE sees 2 latent positions to each side in its encoder, 4 in its
    # decoder, and has nothing that takes in the whole picture.
    backbone = build()
    clip = smooth_clip(64, 136)
    whole = backbone.encode(clip)
    tiling = Tiling(96, 32)
    latent = encode_in_tiles(backbone, clip, tiling)
    seam = spans(17, tiling)[1].fade_in
    alone = torch.ones(17, dtype=torch.bool)
    alone[seam[0] : sum(seam)] = False
    torch.testing.assert_close(latent[..., alone], whole[..., alone])
    decoded, expected = decode_in_tiles(backbone, whole, tiling), backbone.decode(whole)
    alone = alone.repeat_interleave(8)
    torch.testing.assert_close(decoded[..., alone], expected[..., alone])
    # Nearer to the seam it is not, so the test above says something.
    assert (decoded - expected)[..., ~alone].abs().max() > 1e-4


def change(backbone, clip, tiling):
    """How much tiles change a decoded clip, root mean square against its spread."""
    whole = backbone.decode(backbone.encode(clip))
    tiled = decode_in_tiles(backbone, encode_in_tiles(backbone, clip, tiling), tiling)
    return float((tiled - whole).square().mean().sqrt() / whole.std())


@torch.no_grad()
def test_more_overlap_changes_less():
    backbone = build()
    # Two tiles that share exactly what is asked for.
    changes = [
        change(backbone, smooth_clip(32, 192 - overlap), Tiling(96, overlap))
        for overlap in (0, 16, 32)
    ]
    assert changes[0] > 1.5 * changes[1]
    assert changes[1] > 1.5 * changes[2] > 0


@pytest.mark.parametrize("norm", ["clip", "frame"])
@torch.no_grad()
def test_tiles_change_what_cvvae_gives(norm):
    # Statistics and attention are of the tile: no overlap makes it exact, with either
    # normalisation. That is why results with and without tiles are never mixed.
    backbone = build("cv_vae", norm=norm)
    assert change(backbone, smooth_clip(32, 160), Tiling(96, 32)) > 1e-2


@pytest.mark.parametrize(
    ("side", "overlap", "message"),
    [
        (100, 8, "multiples of 8"),
        (96, 12, "multiples of 8"),
        (96, 40, "a third of the side"),
        (96, -8, "between 0"),
        (0, 0, "a third"),
    ],
)
def test_impossible_tiles_are_refused(side, overlap, message):
    with pytest.raises(ValueError, match=message):
        Tiling(side, overlap)


def test_a_clip_that_cannot_be_coded_is_refused_before_it_is_cut():
    with pytest.raises(ValueError, match="100x96"):
        encode_in_tiles(build(), torch.zeros(1, 5, 3, 96, 100), Tiling(48, 16))


def test_gradients_pass_through_tiles():
    backbone, tiling = build(), Tiling(32, 8)
    clip = smooth_clip(48, 48).requires_grad_()
    latent = encode_in_tiles(backbone, clip, tiling)
    decode_in_tiles(backbone, latent, tiling).square().mean().backward()
    assert clip.grad.abs().amax((0, 1, 2)).min() > 0
