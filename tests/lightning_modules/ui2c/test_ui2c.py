"""What is particular to UI2C: quality indices, slots, references, its entropy model."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from lightning_modules import UI2C, load_codec
from lightning_modules.entropy.priors import FactorisedPrior
from lightning_modules.entropy.steps import step_masks
from lightning_modules.entropy.symbols import (
    OverflowingError,
    SymbolDecoder,
    SymbolEncoder,
)
from lightning_modules.packets import DesyncError
from lightning_modules.stages import Stage
from lightning_modules.ui2c.codec import UI2CCodec
from lightning_modules.ui2c.module import FRAME_WEIGHTS
from lightning_modules.ui2c.network import QP_ROWS, Y_LEVELS, _scales


@pytest.fixture
def codec():
    return UI2CCodec("tiny").eval()


def ramp_clip(frames, height=48, width=64):
    ramp = torch.linspace(0, 1, width).expand(3, height, width)
    return torch.stack([(ramp + t / 10) % 1.0 for t in range(frames)])


def test_quality_indices_follow_the_place_in_the_group_of_eight(codec):
    base = torch.tensor([10])
    rows = [codec._qps(base, torch.tensor([t])).tolist()[0] for t in (0, 2, 4, 6, 8)]
    assert rows == [[10, 18], [10, 14], [10, 14], [10, 14], [10, 18]]


def test_quality_indices_reach_every_row_and_none_beyond(codec):
    reached = set()
    for qp in range(64):
        for t in range(0, 8, 2):
            reached |= set(
                codec._qps(torch.tensor([qp]), torch.tensor([t]))[0].tolist()
            )
    assert reached == set(range(QP_ROWS))


def test_lambda_depends_on_the_base_qp_only():
    module = UI2C(size="tiny")
    lmbda = module.lmbda(torch.tensor([0, 63]))
    torch.testing.assert_close(lmbda, torch.tensor([1.0, 768.0]))
    middle = module.lmbda(torch.tensor([31.5]))
    torch.testing.assert_close(middle, torch.tensor([math.sqrt(768.0)]))


def test_every_element_is_coded_in_exactly_one_step():
    for steps in (2, 4):
        masks = step_masks(steps, 8, 5, 7, torch.device("cpu"))
        assert masks.shape == (steps, 8, 5, 7)
        assert (masks.sum(0) == 1).all()
        shares = masks.flatten(1).float().mean(1)
        assert (shares - 1 / steps).abs().max() < 0.05


def test_a_slots_table_touches_only_its_frame_channels(codec):
    # Slot 1 is the first half of the channels, in features and in pixels alike.
    frames = torch.zeros(1, 2, 3, 16, 16)
    frames[:, 0] = 1.0
    patches = torch.nn.functional.pixel_unshuffle(frames.flatten(1, 2), 8)
    assert (patches[:, :192] == 1).all() and (patches[:, 192:] == 0).all()
    network = codec.network
    network.q_encoder.data[0], network.q_encoder.data[1] = 5.0, 7.0
    scales = _scales(network.q_encoder, torch.tensor([[3, 11]])).flatten()
    half = len(scales) // 2
    assert (scales[:half] == 5).all() and (scales[half:] == 7).all()
    feature = torch.randn(1, 48, 2, 2)
    network.recon_out.weight.data[:] = 0
    network.recon_out.bias.data[:192] = 1.0
    out = network.generate(feature, torch.tensor([[0, 0]]))
    assert (out[:, 0] == 1).all() and (out[:, 1] == 0).all()


@pytest.mark.parametrize("size", [(240, 416), (33, 50)])
@pytest.mark.parametrize("frames", [1, 3])
def test_sizes_that_64_does_not_divide_decode_exactly(codec, size, frames):
    clip = ramp_clip(frames, *size)
    packets = list(codec.compress(clip, 42, reconstruct=True))
    decoded = torch.stack(list(codec.decompress(packets, *size)))
    assert torch.equal(decoded, torch.cat([p.x_hat for p in packets]))


def test_a_scene_cut_inside_a_pair_codes_and_decodes(codec):
    clip = torch.cat([ramp_clip(3), 1 - ramp_clip(5).flip(-1)])
    packets = list(codec.compress(clip, 42, reconstruct=True))
    decoded = torch.stack(list(codec.decompress(packets, 48, 64)))
    assert torch.equal(decoded, torch.cat([p.x_hat for p in packets]))


def test_the_last_odd_frame_counts_all_bits_and_shows_one_frame(codec):
    packets = list(codec.compress(ramp_clip(3), 21))
    assert [packet.frames for packet in packets] == [2, 1]
    with torch.inference_mode():
        out = codec(ramp_clip(3)[None], torch.tensor([21]))
    pair, single = out.bits[0, 0] * 2, out.bits[0, 2]
    assert pair > 0 and single > 0
    torch.testing.assert_close(out.bits[0, 0], out.bits[0, 1])


def unit_qps(codec, rate, units):
    codec = type(codec)("tiny", frames_per_unit=1).eval()
    flat = torch.full((3, 16, 16), 0.5)
    packets = codec.compress([flat] * units, rate, intra_period=2)
    return [packet.payload[0] for packet in packets]


@pytest.mark.parametrize("rate", [0, 21, 63, 21.0])
def test_a_whole_rate_is_every_units_qp(codec, rate):
    assert unit_qps(codec, rate, 5) == [rate] * 5


@pytest.mark.parametrize("rate", [0.01, 20.5, 21.3, 42 + 2 / 3, 62.99])
def test_units_at_a_rate_between_two_qps_take_both_in_its_share(codec, rate):
    qps = unit_qps(codec, rate, 30)
    assert set(qps) <= {math.floor(rate), math.ceil(rate)}
    for n in range(1, 31):
        assert abs(sum(qps[:n]) / n - rate) <= 0.5 / n + 1e-9


def test_a_rate_between_two_qps_decodes_exactly_and_can_be_started_anew(codec):
    clip = ramp_clip(9)
    packets = list(codec.compress(clip, 40.5, intra_period=4, reconstruct=True))
    assert {packet.payload[0] for packet in packets} == {40, 41}
    decoded = torch.stack(list(codec.decompress(packets, 48, 64)))
    assert torch.equal(decoded, torch.cat([p.x_hat for p in packets]))
    again = list(codec.compress(clip, 40.5, intra_period=4))
    assert [p.payload for p in again] == [p.payload for p in packets]


@pytest.mark.parametrize("rate", [-0.1, 63.1, math.nan])
def test_a_rate_beyond_all_qps_is_refused(codec, rate):
    with pytest.raises(ValueError, match="qp is a number from 0"):
        list(codec.compress(ramp_clip(1), rate))


def test_skipped_symbols_cost_nothing_and_decode():
    torch.manual_seed(3)
    everything = UI2CCodec("tiny").eval()
    torch.manual_seed(3)
    nothing = UI2CCodec("tiny", skip_threshold=1e6).eval()
    clip = ramp_clip(4)
    full = [len(p.payload) for p in everything.compress(clip, 63)]
    packets = list(nothing.compress(clip, 63, reconstruct=True))
    assert sum(len(p.payload) for p in packets) < sum(full)
    decoded = torch.stack(list(nothing.decompress(packets, 48, 64)))
    assert torch.equal(decoded, torch.cat([p.x_hat for p in packets]))


def test_references_are_drawn_in_equal_shares_and_always_blank_without_hybrid():
    module = UI2C(size="tiny")
    clip = torch.rand(1, 3, 3, 16, 16).expand(600, -1, -1, -1, -1)
    draw = module.draw(clip, torch.arange(600), training=True)
    for name in ("blank", "truth", "noisy"):
        assert 0.27 < float(draw.groups[name][:, 0].float().mean()) < 0.4
    truth, noisy = (draw.groups[name][:, 0] for name in ("truth", "noisy"))
    reference = draw.conditions["reference"]
    assert torch.equal(reference[truth], clip[:, :1].expand(-1, 2, -1, -1, -1)[truth])
    assert not torch.equal(reference[noisy], clip[:, :1].expand_as(reference)[noisy])
    assert 0 <= reference.min() and reference.max() <= 1
    assert set(draw.rate.tolist()) == set(range(64))
    always = UI2C(size="tiny", hybrid_references=False)
    blank = always.draw(clip, torch.arange(600), training=True).conditions["blank"]
    assert blank.all()


def test_phases_start_a_group_when_blank_and_are_even_otherwise():
    module = UI2C(size="tiny")
    clip = torch.rand(1, 3, 3, 16, 16).expand(300, -1, -1, -1, -1)
    draw = module.draw(clip, torch.arange(300), training=True)
    phase, blank = draw.conditions["phase"], draw.conditions["blank"]
    assert (phase[blank] == 0).all()
    assert set(phase[~blank].tolist()) == {0, 2, 4, 6}
    first = draw.frame_weights[:, 0]
    expected = torch.tensor(FRAME_WEIGHTS)[phase]
    assert torch.equal(first, expected)


@pytest.mark.parametrize(("frames", "coded"), [(1, 1), (2, 2), (3, 2), (7, 6), (8, 6)])
def test_the_frames_before_the_first_pair_are_its_reference(frames, coded):
    module = UI2C(size="tiny")
    clip = torch.rand(2, frames, 3, 16, 16)
    draw = module.draw(clip, torch.arange(2), training=True)
    assert draw.clip.shape[1] == coded
    assert torch.equal(draw.clip, clip[:, frames - coded :])


def test_a_blank_reference_ignores_the_given_frames(codec):
    clip = ramp_clip(2)[None]
    rate = torch.tensor([21])
    given = torch.rand(1, 2, 3, 48, 64)
    with torch.inference_mode():
        blank = codec(clip, rate)
        ignored = codec(clip, rate, reference=given, blank=torch.tensor([True]))
        used = codec(clip, rate, reference=given, blank=torch.tensor([False]))
    assert torch.equal(blank.x_hat, ignored.x_hat)
    assert not torch.equal(blank.x_hat, used.x_hat)


def test_the_integer_tables_of_z_are_its_learned_distribution():
    prior = FactorisedPrior(3, 4)
    prior.b.data[0] += torch.linspace(-9, 9, 12).reshape(3, 4)
    tables = prior.tables()
    for row in range(3):
        for channel in range(4):
            table = row * 4 + channel
            first, length = int(tables.offset[table]), int(tables.length[table])
            values = torch.arange(first, first + length - 2, dtype=torch.float32)
            z = torch.zeros(1, 4, 1, len(values))
            z[0, channel, 0] = values
            bits = prior.bits(z, torch.tensor([row]))[0, channel, 0]
            cdf = torch.tensor(tables.cdf[table, : length - 1])
            mass = cdf.diff() / 65536
            likely = mass > 1e-3
            torch.testing.assert_close(
                bits[likely].exp2().reciprocal(), mass[likely], rtol=0.02, atol=1e-4
            )


def test_z_far_from_zero_is_coded_by_the_escape():
    prior = FactorisedPrior(1, 1)
    tables = prior.tables()
    assert int(tables.offset[0]) > -127
    symbols, indices = np.array([127, -127, 0]), np.zeros(3, dtype=np.int32)
    encoder = SymbolEncoder()
    encoder.push(symbols, indices, tables)
    decoder = SymbolDecoder(encoder.finish())
    assert decoder.pull(indices, tables).tolist() == symbols.tolist()
    decoder.finish()


def test_scales_go_to_the_nearest_level():
    scales = torch.tensor([0.0, 0.11, 16.0, 1e9])
    assert Y_LEVELS.indices(scales).tolist() == [0, 0, 127, 127]
    levels = torch.logspace(math.log10(0.11), math.log10(16.0), 128)
    assert Y_LEVELS.indices(levels * 1.01).tolist() == list(range(128))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "huge"}, "huge"),
        ({"frames_per_unit": 3}, "frames_per_unit is 3"),
        ({"divided": True}, "frames_per_unit to 1"),
    ],
)
def test_arguments_that_make_no_codec_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        UI2CCodec(**{"size": "tiny", **arguments})


def test_an_odd_intra_period_is_refused(codec):
    with pytest.raises(ValueError, match="intra_period is 3"):
        list(codec.compress(ramp_clip(4), 21, intra_period=3))


@pytest.mark.parametrize(
    "lmbda_range",
    [(0, 0), (-1, 5), (512, 1), (1, float("inf")), (float("nan"), 5)],
)
def test_lagrangians_that_no_qp_can_have_are_refused(lmbda_range):
    with pytest.raises(ValueError, match=r"lmbda_range is \[.*must be above 0"):
        UI2C(size="tiny", lmbda_range=lmbda_range)
    assert UI2C(size="tiny", lmbda_range=(5, 5)).lmbda(
        torch.tensor([0, 63])
    ).unique().tolist() == pytest.approx([5])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"options": {"referenses": {}}}, "referenses"),
        ({"options": {"references": {"black": 1.0}}}, "black"),
        ({"options": {"references": {"blank": 0.0}}}, "not all 0"),
        ({"options": {"references": {}}}, "not all 0"),
        ({"options": {"references": 5}}, "references 5 must give shares"),
        ({"options": {"references": None}}, "references None must give shares"),
        ({"options": {"references": {"blank": "all"}}}, "numbers of at least 0"),
        ({"options": {"references": {"blank": 2, "truth": -1}}}, "at least 0"),
        ({"options": {"references": {"blank": float("inf")}}}, "at least 0"),
        ({"trainable": ["network.decode"]}, "network.decode"),
        ({"weights": {"distorsion": 1.0}}, "distorsion"),
    ],
)
def test_a_misspelt_row_is_refused(row, message):
    module = UI2C(size="tiny")
    with pytest.raises(ValueError, match=message):
        module.start_stage(Stage("row", 1, 3, **row), 0, 1, 0)
        clip = torch.rand(1, 3, 3, 16, 16)
        draw = module.draw(clip, torch.arange(1), training=True)
        out = module.codec(draw.clip, draw.rate, **draw.conditions)
        module.loss(module.terms(draw, out))


def test_a_nan_in_the_weights_is_named_and_not_coded(codec):
    codec.network.encoder_down.bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        list(codec.compress(ramp_clip(2), 21))


@pytest.mark.parametrize("frames", [0, 3])
def test_a_unit_that_claims_frames_it_cannot_hold_is_refused(codec, frames):
    (packet,) = codec.compress(ramp_clip(2), 21)
    with pytest.raises(DesyncError, match=f"cannot complete {frames} frames"):
        list(codec.decompress([replace(packet, frames=frames)], 48, 64))


def test_a_recurrence_that_overflows_is_an_error_at_its_frame(codec):
    number = torch.zeros(1)

    def grow(module, inputs, output):
        number.add_(1)
        return output * (torch.inf if number > 2 else 1.0)

    codec.network.decoder.register_forward_hook(grow)
    packets = codec.compress(ramp_clip(8), 21)
    assert [next(packets).frames, next(packets).frames] == [2, 2]
    with pytest.raises(OverflowingError, match=r"frame 4 holds NaN.*at rate 21"):
        next(packets)


@pytest.mark.gpu
def test_cuda_bytes_decode_on_cuda():
    codec = UI2CCodec("tiny").eval().cuda()
    packets = list(codec.compress(ramp_clip(5), 42, reconstruct=True))
    decoded = torch.stack([f.cpu() for f in codec.decompress(packets, 48, 64)])
    assert torch.equal(decoded, torch.cat([p.x_hat.cpu() for p in packets]))


@pytest.mark.parametrize("frames_per_unit", [1, 2])
def test_a_checkpoint_of_the_former_small_is_its_network_under_its_name(
    frames_per_unit, tmp_path
):
    architecture = {"size": "small_48", "frames_per_unit": frames_per_unit}
    module = UI2C(**architecture)
    trainer = Trainer(accelerator="cpu", logger=False)
    trainer.strategy.connect(module)
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["codec"]["architecture"]["size"] = "small"
    checkpoint["hyper_parameters"]["size"] = "small"
    torch.save(checkpoint, path)
    for codec in load_codec(path), UI2C.load_from_checkpoint(path).codec:
        assert codec.network.encoder_down.out_channels == 48
        assert codec.architecture["size"] == "small"
        torch.testing.assert_close(
            dict(codec.state_dict()), dict(module.codec.state_dict())
        )


@pytest.mark.parametrize(("size", "latents"), [("paper", 256), ("small", 96)])
def test_latents_of_the_image_model_are_its_own(size, latents):
    with torch.device("meta"):
        codec = UI2CCodec(size, frames_per_unit=1, divided=True)
    assert codec.latents.note.endswith(f"has {latents}")
    assert codec.intra.encoder[-1].out_channels == latents
