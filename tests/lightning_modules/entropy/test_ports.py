"""One walk, three purposes: what is estimated, written and read is the same."""

from collections import Counter

import pytest
import torch

from lightning_modules.entropy.distributions import Factorised, Gaussians
from lightning_modules.entropy.ports import (
    DecodePort,
    EncodePort,
    EstimatePort,
    SilentPort,
)
from lightning_modules.entropy.priors import FactorisedPrior, ScaleLevels
from lightning_modules.entropy.steps import checkerboard, step_masks
from lightning_modules.entropy.symbols import OverflowingError, SymbolDecoder

LEVELS = ScaleLevels(0.11, 16.0, 64)
SHAPE = (1, 4, 5, 7)
CPU = torch.device("cpu")


def latent(seed=0):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(SHAPE, generator=generator) * 3 + 0.2
    return torch.randn(SHAPE, generator=generator) * scale, scale


@pytest.mark.parametrize(
    "keep",
    [None, checkerboard(5, 7, CPU)[0], step_masks(2, 4, 5, 7, CPU)[1]],
    ids=["all", "positions", "elements"],
)
@pytest.mark.parametrize("limits", [None, (-1.0, 2.0)])
def test_what_was_written_is_read_and_estimated(keep, limits):
    prior = FactorisedPrior(3, 4)
    tables = {"y": LEVELS.tables(), "z": prior.tables()}
    y, scale = latent()
    z = 9 * latent(1)[0]

    def walk(port, z, y):
        of_z = Factorised(prior, SHAPE, row=torch.tensor([2]))
        return port.code(z, of_z), port.code(
            y, Gaussians(scale, LEVELS, keep, limits=limits)
        )

    encode, estimate = EncodePort(tables, estimate=True), EstimatePort(None)
    with torch.no_grad():
        written = walk(encode, z, y)
        estimated = walk(estimate, z, y)
    read = walk(DecodePort(SymbolDecoder(encode.encoder.finish()), tables), None, None)
    for found in (estimated, read):
        assert all(map(torch.equal, found, written))
    bounded = y if limits is None else y.clamp(*limits)
    kept = torch.ones_like(y) if keep is None else keep.expand_as(y)
    assert torch.equal(written[1], bounded.round() * kept)
    for part, values in zip("zy", written, strict=True):
        taken = values.flatten() if part == "z" or keep is None else values[..., keep]
        assert encode.histograms[part] == Counter(taken.flatten().int().tolist())
    assert float(estimate.bits) == pytest.approx(encode.bits, rel=1e-5)
    assert set(estimate.parts) == {"z", "y"}
    assert not walk(SilentPort(), None, None)[1].any()


def test_samples_share_no_noise_however_they_are_folded():
    y, scale = (x.expand(6, -1, -1, -1) for x in latent())
    seeds = torch.tensor([3, 4])
    frames, whole = (EstimatePort(seeds, 7, samples=2) for _ in range(2))
    frames.code(y, Gaussians(scale, LEVELS))
    folded = [x.reshape(2, 12, 5, 7) for x in (y, scale)]
    whole.code(folded[0], Gaussians(folded[1], LEVELS))
    torch.testing.assert_close(frames.bits, whole.bits)
    assert frames.bits.shape == (2,) and frames.bits[0] != frames.bits[1]


def test_exact_latents_have_no_noise_but_hyper_latents_do():
    y, scale = latent()
    of_z = Factorised(FactorisedPrior(1, 4), SHAPE)
    noisy, exact = (EstimatePort(torch.tensor([1]), exact=e) for e in (False, True))
    for port in (noisy, exact):
        port.code(y, of_z)
        port.code(y, Gaussians(scale, LEVELS))
    assert torch.equal(noisy.parts["z"], exact.parts["z"])
    rounded = EstimatePort(None)
    rounded.code(y, Gaussians(scale, LEVELS))
    assert torch.equal(exact.parts["y"], rounded.parts["y"])
    assert not torch.equal(noisy.parts["y"], rounded.parts["y"])


def test_what_is_not_finite_is_not_written():
    y, scale = latent()
    y[0, 0, 0, 0] = float("nan")
    port = EncodePort({"y": LEVELS.tables()}, estimate=False)
    with pytest.raises(OverflowingError, match="not finite"):
        port.code(y, Gaussians(scale, LEVELS))


def test_what_is_too_large_is_refused_by_its_value():
    y, scale = latent()
    y[0, 0, 0, 0] = 2.0**31
    port = EncodePort({"y": LEVELS.tables()}, estimate=False)
    with pytest.raises(ValueError, match=r"symbols must lie .* got .*\.\.2147483648"):
        port.code(y, Gaussians(scale, LEVELS))
    # Within limits it is not too large, and neither is infinity.
    y[0, 0, 0, 1] = float("inf")
    coded = port.code(y, Gaussians(scale, LEVELS, limits=(-9.0, 9.0)))
    assert coded[0, 0, 0, :2].tolist() == [9.0, 9.0]


@pytest.mark.parametrize("keep", [None, checkerboard(5, 7, CPU)[1]])
def test_a_scale_that_is_no_number_is_refused_by_both_sides(keep):
    y, scale = latent()
    tables = {"y": LEVELS.tables()}
    port = EncodePort(tables, estimate=False)
    port.code(y, Gaussians(scale, LEVELS, keep))
    decode = DecodePort(SymbolDecoder(port.encoder.finish()), tables)
    scale[0, 0, 0, 1] = float("nan")
    for each, x in ((port, y), (decode, None)):
        with pytest.raises(OverflowingError, match="deviation is NaN"):
            each.code(x, Gaussians(scale, LEVELS, keep))


@pytest.mark.parametrize("keep", [None, checkerboard(5, 7, CPU)[0]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_latents_are_coded_alike_whatever_their_type_and_layout(keep, dtype):
    y, scale = latent()
    tables = {"y": LEVELS.tables()}
    port = EncodePort(tables, estimate=True)
    plain = port.code(y.to(dtype), Gaussians(scale, LEVELS, keep))
    last = EncodePort(tables, estimate=True)
    channels_last = [
        x.contiguous(memory_format=torch.channels_last) for x in (y, scale)
    ]
    coded = last.code(
        channels_last[0].to(dtype), Gaussians(channels_last[1], LEVELS, keep)
    )
    assert coded.dtype == plain.dtype == dtype and torch.equal(coded, plain)
    stream = port.encoder.finish()
    assert last.encoder.finish() == stream
    decode = DecodePort(SymbolDecoder(stream), tables)
    assert torch.equal(
        decode.code(None, Gaussians(scale, LEVELS, keep)).to(dtype), coded
    )
