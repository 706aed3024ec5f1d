"""What is particular to DualDomain: its invariants, alignment, steps, tables, modes."""

import inspect
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lightning_modules.codec import DesyncError, Packet
from lightning_modules.dual_domain import entropy_model, ports
from lightning_modules.dual_domain.alignment import Alignment, sample
from lightning_modules.dual_domain.codec import DualDomainCodec
from lightning_modules.dual_domain.design import SIZES, lagrangian
from lightning_modules.dual_domain.entropy_model import (
    FRACTIONS,
    LEVELS,
    ContextModel,
    choose_tables,
    symbol_tables,
)
from lightning_modules.dual_domain.experts import StepScale, regularisers
from lightning_modules.dual_domain.flow import compose, to_latent_scale, warp
from lightning_modules.dual_domain.module import DualDomain
from lightning_modules.dual_domain.network import (
    Coded,
    DualDomainNetwork,
    Mode,
    Reference,
    latent_shape,
)
from lightning_modules.dual_domain.packets import Head, read_head
from lightning_modules.dual_domain.ports import DecodePort, Doubt, EncodePort
from lightning_modules.stages import Stage

CONFIGS = Path(__file__).parents[1] / "experiments" / "configs"
HEIGHT, WIDTH = 40, 56
PROPAGATING = [
    {"quantiser": "mean_centred", "mode_decision": "inter"},
    {"transform": "separate", "mode_decision": "inter"},
]
FIRST_BYTE_MODE = 3


def make(**options):
    torch.manual_seed(1)
    return DualDomainCodec("tiny", **options).eval()


@pytest.fixture(scope="module")
def codec():
    return make()


def moving_clip(frames, height=HEIGHT, width=WIDTH):
    """A picture that moves to the right by two pixels a frame."""
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(1, 3, 6, 16, generator=generator)
    size = (height, width + 2 * frames)
    wide = torch.nn.functional.interpolate(coarse, size, mode="bicubic")[0].clamp(0, 1)
    starts = [2 * (frames - t) for t in range(frames)]
    return torch.stack([wide[..., s : s + width] for s in starts])


def noise_like(state):
    return tuple(
        replace(
            r,
            x_hat=torch.rand_like(r.x_hat),
            y_hat=5 * torch.randn_like(r.y_hat),
            flow=None if r.flow is None else 9 * torch.randn_like(r.flow),
        )
        for r in state
    )


@torch.inference_mode()
def coded_after(codec, frames, quality=0.67):
    """Code frames; return the coder, and what they leave to the next."""
    coder = codec.frame_coder(codec.numeric)
    state = ()
    for frame in frames:
        _, state = coder.encode(frame, quality, state)
    return coder, state


# The invariants


def test_nothing_that_makes_pixels_or_symbols_takes_another_frame():
    for method, names in (
        (DualDomainNetwork.analyse, {"self", "frame", "quality"}),
        (DualDomainNetwork.synthesise, {"self", "coded", "quality"}),
        (DualDomainNetwork.to_latent, {"self", "coded", "quality"}),
    ):
        assert set(inspect.signature(method).parameters) == names
    assert set(Coded.__dataclass_fields__) == {"values", "hyper"}


@torch.inference_mode()
def test_noise_for_every_reference_changes_the_rate_and_nothing_else():
    codec = make(mode_decision="inter")
    clip = moving_clip(4)
    coder, state = coded_after(codec, clip[:3])
    assert len(state) == 3
    own, left = coder.encode(clip[3], 0.67, state, reconstruct=True)
    other, there = coder.encode(clip[3], 0.67, noise_like(state), reconstruct=True)
    assert torch.equal(own.x_hat, other.x_hat)
    assert torch.equal(left[0].x_hat, there[0].x_hat)
    assert torch.equal(left[0].y_hat, there[0].y_hat)
    assert abs(own.estimated_bits - other.estimated_bits) > 1


@torch.inference_mode()
def test_a_frame_has_the_same_pixels_intra_and_inter(codec):
    clip = moving_clip(3)
    coder, state = coded_after(codec, clip[:2])
    value, frame = 43909 / 65535, clip[2]
    padded = torch.nn.functional.pad(frame[None], (0, 8, 0, 8), mode="replicate")
    attempts = coder.attempts(padded, value, state, estimate=False)
    assert {attempt.head.mode for attempt in attempts} == set(Mode)
    symbols = [attempt.coded.values for attempt in attempts]
    assert all(torch.equal(symbols[0], other) for other in symbols[1:])
    assert torch.equal(symbols[0], symbols[0].round()) and symbols[0].abs().max() > 2
    assert len({attempt.stream for attempt in attempts}) == 3
    shown = set()
    for attempt in attempts:
        seen = state[: attempt.head.references]
        pixels, _ = coder.exact.finish(
            attempt.coded, seen, attempt.flow, torch.tensor([value]).double()
        )
        shown.add(pixels.numpy().tobytes())
    assert len(shown) == 1


def gradients_of_references(options):
    """Return the gradients of a frame's pixels and of its bits by its reference."""
    codec = make(**options)
    network, clip = codec.network, moving_clip(2, 48, 64)
    with torch.no_grad():
        _, state = coded_after(codec, clip[:1])
    reference = replace(
        state[0],
        x_hat=state[0].x_hat.float().clone().requires_grad_(),
        y_hat=state[0].y_hat.float().clone().requires_grad_(),
    )
    quality = torch.tensor([0.5])
    frame = clip[1:2]
    shape = latent_shape(frame)
    port = ports.EstimatePort(codec.options.quantiser)
    motion = network.analyse_flow(frame, reference.x_hat, quality)
    flow = network.code_motion(Mode.INTER, motion, quality, shape, port)
    if codec.options.transform == "separate":
        target = network.analyse_inter(frame, reference.x_hat, flow, quality)
    else:
        target = network.analyse(frame, quality)
    coded = network.code(target, (reference,), flow, quality, shape, port)
    pixels, _ = network.finish(coded, (reference,), flow, quality)
    leaves = [reference.x_hat, reference.y_hat]

    def gradients(x):
        return torch.autograd.grad(
            x.sum(), leaves, retain_graph=True, allow_unused=True
        )

    return gradients(pixels), gradients(sum(port.bits.values()))


def test_pixels_have_no_gradient_by_references_and_bits_have():
    pixels, bits = gradients_of_references({})
    assert pixels == (None, None)
    assert all(gradient.any() for gradient in bits)


def test_the_gradient_check_can_fail():
    # Rounding a difference from a mean hides it from gradients: not mean_centred.
    pixels, _ = gradients_of_references(PROPAGATING[1])
    assert any(gradient is not None and gradient.any() for gradient in pixels)


def later_frames(codec, first_quality):
    clip = moving_clip(5)
    packets = codec.compress(
        clip,
        0.67,
        reconstruct=True,
        rate_at=lambda t: first_quality if t == 0 else 0.67,
    )
    return torch.cat([packet.x_hat for packet in packets])[1:]


def test_a_bad_first_frame_does_not_touch_the_frames_after_it(codec):
    assert torch.equal(later_frames(codec, 0.0), later_frames(codec, 1.0))


@pytest.mark.parametrize("options", PROPAGATING, ids=["mean_centred", "separate"])
def test_the_drift_check_can_fail(options):
    codec = make(**options)
    drift = (later_frames(codec, 0.0) - later_frames(codec, 1.0)).abs()
    assert (drift.amax(dim=(1, 2, 3)) > 0).all()
    assert drift.max() > 0.01


# Modes, packets and losses


@torch.inference_mode()
def test_the_smallest_packet_is_taken_whatever_the_mode(codec):
    clip = moving_clip(2)
    coder, state = coded_after(codec, clip[:1])
    best, _ = coder.encode(clip[1], 0.33, state)
    sizes = []
    for mode in Mode:
        coder.modes = lambda state, mode=mode: [mode]
        packet, _ = coder.encode(clip[1], 0.33, state)
        assert packet.payload[0] & FIRST_BYTE_MODE == mode
        sizes.append(len(packet.payload))
    assert len(best.payload) == min(sizes) < max(sizes)


def test_estimated_decisions_cost_about_what_real_ones_do(codec):
    clip = moving_clip(4)
    estimated = make(mode_decision="estimated")
    real = sum(len(p.payload) for p in codec.compress(clip, 0.5))
    other = sum(len(p.payload) for p in estimated.compress(clip, 0.5))
    assert abs(real - other) <= 0.01 * real


def test_always_inter_is_never_intra_after_a_start():
    codec = make(mode_decision="inter")
    packets = list(codec.compress(moving_clip(4), 0.5, intra_period=3))
    modes = [packet.payload[0] & FIRST_BYTE_MODE for packet in packets]
    assert modes == [Mode.INTRA, Mode.INTER, Mode.INTER, Mode.INTRA]
    references = [packet.payload[0] >> 2 & 3 for packet in packets]
    assert references == [0, 1, 2, 0]


def test_quality_is_in_the_packet_and_any_is_possible(codec):
    frame = moving_clip(1)
    payloads = []
    for quality in (0.0, 0.37, 0.370004, 1.0):
        (packet,) = codec.compress(frame, quality)
        assert read_head(packet)[0].quality == pytest.approx(quality, abs=1e-5)
        payloads.append(packet.payload)
    assert payloads[1] == payloads[2]
    with pytest.raises(ValueError, match="quality is a number from 0"):
        list(codec.compress(frame, 0.5, rate_at=lambda t: 1.5))


def test_a_head_reads_back_whatever_it_holds():
    doubts = [Doubt(0, -3, 63), Doubt(700, 2**20 * FRACTIONS, 0), Doubt(701, -129, 1)]
    for mode, references in ((Mode.INTRA, 0), (Mode.INTER, 3), (Mode.STILL, 1)):
        for held in ([], doubts):
            head = Head(mode, references, 12345 / 65535, "float32", held)
            payload = head.to_bytes()
            assert read_head(Packet(payload + b"xyz", 1, 0)) == (head, len(payload))
    for payload in (
        b"",
        b"\x01\x00",
        b"\x03\x00\x00",
        b"\x01\x00\x00",
        b"\x10\0\0\xff",
    ):
        with pytest.raises(DesyncError):
            read_head(Packet(payload, 1, 0))


@pytest.mark.parametrize("missing", [1, 4])
def test_a_loss_that_is_not_marked_is_an_error(missing):
    codec = make(mode_decision="inter")
    packets = list(codec.compress(moving_clip(6), 0.5))
    del packets[missing]
    with pytest.raises(DesyncError):
        list(codec.decompress(packets, HEIGHT, WIDTH))


def test_after_a_loss_the_last_frame_stays_until_an_intra_frame():
    codec = make(mode_decision="inter")
    packets = list(codec.compress(moving_clip(6), 0.5, intra_period=4))
    whole = list(codec.decompress(packets, HEIGHT, WIDTH))
    packets[1] = None
    shown = list(codec.decompress(packets, HEIGHT, WIDTH))
    assert all(torch.equal(shown[t], whole[0]) for t in (1, 2, 3))
    assert all(torch.equal(shown[t], whole[t]) for t in (4, 5))


def test_float32_is_a_choice_that_each_packet_records(codec):
    clip = moving_clip(2)
    fast = make(numeric="float32")
    packets = list(fast.compress(clip, 0.5, reconstruct=True))
    assert all(read_head(p)[0].numeric == "float32" for p in packets)
    decoded = torch.stack(list(codec.decompress(packets, HEIGHT, WIDTH)))
    assert torch.equal(decoded, torch.cat([p.x_hat for p in packets]))
    codec.configure(numeric="float32", mode_decision="inter")
    again = list(codec.compress(clip, 0.5))
    codec.configure(numeric="float64", mode_decision="real")
    assert [read_head(p)[0].numeric for p in again] == ["float32"] * 2


def test_weights_that_changed_are_those_that_code(codec):
    clip = moving_clip(2)
    codec = make()
    before = [p.payload for p in codec.compress(clip, 0.5)]
    codec.network.context.start.data += 1.0
    assert [p.payload for p in codec.compress(clip, 0.5)] != before


def test_a_nan_in_the_weights_is_named_and_not_coded():
    codec = make()
    codec.network.encoder[-1].bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        list(codec.compress(moving_clip(1), 0.5))


# Tables


def gaussian_mass(k, mean, sigma):
    def below(x):
        return 0.5 * math.erfc(-(x - mean) / sigma / math.sqrt(2))

    return below(k + 0.5) - below(k - 0.5)


def test_a_table_is_the_gaussian_of_its_fraction_and_scale():
    tables = symbol_tables()
    assert len(tables) == LEVELS.count * FRACTIONS
    for sigma, mean in ((0.11, 0.0), (0.3, 5.25), (2.0, -7.5), (9.0, 100.4375)):
        log_scale = torch.tensor([math.log(sigma)], dtype=torch.float64)
        choice = choose_tables(torch.tensor([mean], dtype=torch.float64), log_scale)
        row, shift = int(choice.rows[0]), int(choice.shifts[0])
        level = int(choice.levels[0])
        found = math.exp(math.log(LEVELS.low) + level * LEVELS.step)
        assert found == pytest.approx(sigma, rel=LEVELS.step)
        first = int(tables.offset[row])
        used = tables.cdf[row, : tables.length[row] - 1]
        for number, mass in enumerate(np.diff(used) / 65536):
            expected = gaussian_mass(first + number + shift, mean, found)
            assert mass == pytest.approx(expected, abs=2e-3 * expected + 1e-4)


def test_means_and_scales_go_to_the_nearest_table():
    means = torch.tensor([0.0, 0.03, 0.04, -0.04, 0.49, 0.51, -0.5, 2.99])
    choice = choose_tables(means.double(), torch.zeros(8).double())
    assert choice.means.tolist() == [0, 0, 1, -1, 8, 8, -8, 48]
    exact = choice.shifts + (choice.rows % FRACTIONS - FRACTIONS // 2) / FRACTIONS
    assert (exact - means).abs().max() <= 0.5 / FRACTIONS
    ends = choose_tables(means[:2].double(), torch.tensor([-99.0, 99.0]))
    assert ends.levels.tolist() == [0, LEVELS.count - 1]


def test_coded_bits_are_the_models_within_half_a_percent():
    generator = torch.Generator().manual_seed(0)
    shape = (1, 1, 1, 40000)
    mean = 4 * torch.randn(shape, generator=generator).double()
    log_scale = 1.5 * torch.randn(shape, generator=generator).double() - 0.3
    log_scale = log_scale.clamp(math.log(0.11), math.log(64))
    drawn = mean + log_scale.exp() * torch.randn(shape, generator=generator)
    port = EncodePort("lattice", {"symbols": symbol_tables()}, estimate=True)
    mask = torch.ones(shape[1:], dtype=torch.bool)
    port.values(drawn, mean, log_scale, mask, "latent")
    stream = port.encoder.finish()
    assert 8 * len(stream) == pytest.approx(port.bits, rel=0.005)
    decode = DecodePort("lattice", port.tables, SymbolDecoder(stream), [])
    found = decode.values(None, mean, log_scale, mask, "latent")
    assert torch.equal(found, drawn.round())


def coded_with_noise(monkeypatch, codec, guard, noise):
    """Code with a guard band; decode on a machine whose results are a bit different."""
    clip = moving_clip(3)
    monkeypatch.setattr(entropy_model, "GUARD", guard)
    packets = list(codec.compress(clip, 0.67, reconstruct=True))
    generator = torch.Generator().manual_seed(5)

    def other_machine(mean, log_scale):
        def disturbed(x):
            error = torch.rand(x.shape, generator=generator, dtype=x.dtype) - 0.5
            return x + noise * error

        return choose_tables(disturbed(mean), disturbed(log_scale))

    monkeypatch.setattr(ports, "choose_tables", other_machine)
    decoded = torch.stack(list(codec.decompress(packets, HEIGHT, WIDTH)))
    assert torch.equal(decoded, torch.cat([p.x_hat for p in packets]))
    return packets


def test_tables_near_an_edge_are_in_the_packet(monkeypatch, codec):
    packets = coded_with_noise(monkeypatch, codec, guard=1e-2, noise=1e-4)
    assert sum(len(read_head(p)[0].doubts) for p in packets) > 5


def test_without_a_guard_another_machine_desynchronises(monkeypatch, codec):
    with pytest.raises(DesyncError):
        coded_with_noise(monkeypatch, codec, guard=0.0, noise=1e-2)


def test_almost_nothing_lies_within_the_guard_band(codec):
    packets = list(codec.compress(moving_clip(2), 0.67))
    assert all(not read_head(p)[0].doubts for p in packets)


class Recorder:
    """A port that rounds, and notes the parameters that it was given."""

    def __init__(self):
        self.seen = []

    def values(self, target, mean, log_scale, mask, part):
        chosen = mask.expand_as(mean[0])
        self.seen.append((mean[0][chosen].clone(), log_scale[0][chosen].clone()))
        return target.round() * mask


def test_an_element_sees_only_what_was_coded_before_it():
    torch.manual_seed(2)
    widths = SIZES["tiny"]
    context = ContextModel(widths)
    target, hyper = 4 * torch.randn(1, 48, 4, 4), torch.randn(1, 48, 4, 4)

    def parameters(target):
        port = Recorder()
        with torch.no_grad():
            context(target, hyper, None, None, port)
        return port.seen

    base = parameters(target)
    steps = 2 * len(widths.groups)
    assert len(base) == steps
    board = (torch.arange(4)[:, None] + torch.arange(4)) % 2 == 0
    for changed in range(steps):
        group, odd = divmod(changed, 2)
        first = sum(widths.groups[:group])
        other = target.clone()
        where = ~board if odd else board
        other[:, first : first + widths.groups[group]] += 3.0 * where
        for step, (mine, theirs) in enumerate(
            zip(base, parameters(other), strict=True)
        ):
            same = all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
            assert same == (step <= changed), (changed, step)


# Alignment


def test_a_flow_says_where_content_lies_in_the_reference():
    x = torch.rand(1, 2, 9, 11)
    flow = torch.zeros(1, 2, 9, 11)
    flow[:, 0], flow[:, 1] = 3.0, -2.0
    moved = warp(x, flow)
    torch.testing.assert_close(moved[..., 2:, :8], x[..., :7, 3:])
    # Beyond the border its nearest pixel counts.
    torch.testing.assert_close(moved[..., 0, 10], x[..., 0, 10])


def test_flows_compose_and_shrink_with_the_latent():
    steps = [torch.full((1, 2, 32, 48), v) for v in (1.5, -4.0, 16.0)]
    total = [float(flow[0, 0, 8, 8]) for flow in compose(steps)]
    assert total == [1.5, -2.5, 13.5]
    # A zoom: what the second flow says where the first one ends.
    ramp = torch.arange(48.0).expand(1, 2, 32, 48) / 8
    _, both = compose([steps[0], ramp])
    assert float(both[0, 0, 5, 10]) == pytest.approx(1.5 + 11.5 / 8)
    small = to_latent_scale(torch.full((1, 2, 32, 48), 32.0))
    assert small.shape == (1, 2, 2, 3) and (small == 2.0).all()


def test_samples_are_bilinear_at_the_asked_places():
    generator = torch.Generator().manual_seed(4)
    heads, points, depth, height, width = 2, 3, 2, 5, 6
    features = torch.rand(1, 2 * heads * depth, height, width, generator=generator)
    places = 4 * torch.rand(1, heads, points, 2, height, width, generator=generator) - 2
    found = sample(features, places)
    assert found.shape == (1, heads, 2 * depth, points, height, width)

    def at(channel, right, down):
        right = min(max(right, 0.0), width - 1.0)
        down = min(max(down, 0.0), height - 1.0)
        left, top = int(right), int(down)
        value = 0.0
        for x, wx in ((left, 1 - right + left), (left + 1, right - left)):
            for y, wy in ((top, 1 - down + top), (top + 1, down - top)):
                if wx * wy:
                    value += wx * wy * float(features[0, channel, y, x])
        return value

    for head, point, y, x in ((0, 0, 2, 3), (1, 2, 0, 0), (1, 1, 4, 5), (0, 2, 1, 4)):
        right, down = (float(v) for v in places[0, head, point, :, y, x])
        for number in range(2 * depth):
            half, index = divmod(number, depth)
            channel = half * heads * depth + head * depth + index
            expected = at(channel, x + right, y + down)
            assert float(found[0, head, number, point, y, x]) == pytest.approx(
                expected, abs=1e-5
            )


def test_attention_sees_the_newest_reference_first_and_then_all():
    torch.manual_seed(3)
    alignment = Alignment(SIZES["tiny"])
    coarse, known = torch.randn(1, 48, 3, 4), torch.randn(1, 3, 48, 3, 4)
    flows = torch.zeros(1, 3, 2, 3, 4)
    first, second = alignment.layers
    for layer, ages in ((first, 1), (second, 3)):
        assert layer.attention.bias.shape[0] == ages
    base = alignment(coarse, known, flows)
    for age in range(3):
        other = known.clone()
        other[:, age] = 0.0
        assert not torch.equal(alignment(coarse, other, flows), base)
    # Without the second layer, all but the newest are out of sight.
    second.attention.bias.data -= 1e6
    newest = alignment(coarse, known, flows)
    other = known.clone()
    other[:, 1:] = 0.0
    assert torch.equal(alignment(coarse, other, flows), newest)
    assert not torch.equal(alignment(coarse, 0 * known, flows), newest)
    # The null sample can outweigh all others.
    for layer in (first, second):
        layer.attention.bias.data -= 1e6
    assert torch.equal(
        alignment(coarse, known, flows), alignment(coarse, 0 * known, flows)
    )


@torch.no_grad()
def test_the_coarse_prediction_is_the_warped_frame_transformed_anew(codec):
    network = codec.network
    x_hat = moving_clip(1, 64, 192)
    reference = Reference(x_hat, network.transform(x_hat), torch.zeros(1, 2, 64, 192))
    quality, hyper = torch.tensor([0.5]), torch.zeros(1, 48, 4, 12)
    flow = torch.zeros(1, 2, 64, 192)
    _, still = network._predict((reference,), flow, quality, hyper)
    torch.testing.assert_close(
        still, network.to_symbols(reference.y_hat, quality, hyper)
    )
    flow[:, 0] = 16.0
    _, moved = network._predict((reference,), flow, quality, hyper)
    # One position of the latent; far from the border it does not matter.
    torch.testing.assert_close(
        moved[..., 5], still[..., 6], rtol=1e-3, atol=1e-3 * float(still.abs().max())
    )
    assert not torch.allclose(moved[..., 5], still[..., 5], atol=0.1)


# Steps


@pytest.mark.parametrize("kind", ["moe", "moe_hyper", "gain8", "single", "scalar"])
def test_scales_rise_with_quality_from_the_start(kind):
    torch.manual_seed(0)
    scale = StepScale(SIZES["tiny"], kind)
    content = 3 * torch.randn(1, 48, 3, 4)
    places = torch.linspace(0, 1, 17)
    steps = torch.stack([scale(content, q[None]) for q in places])
    ends = (steps[-1] - steps[0]).mean().item()
    assert ends == pytest.approx(0.5 * math.log(0.0483 / 0.0018), rel=0.1)
    assert (steps.diff(dim=0).mean(dim=(1, 2, 3, 4)) > 0).all()


def test_experts_say_only_where_steps_differ():
    torch.manual_seed(0)
    scale = StepScale(SIZES["tiny"], "moe")
    content, quality = 3 * torch.randn(1, 48, 3, 4), torch.tensor([0.4])
    before = scale(content, quality)
    assert before.std(dim=(-2, -1)).mean() > 1e-3
    scale.experts.expert_out.bias.data += 5.0
    torch.testing.assert_close(scale(content, quality), before, rtol=0, atol=1e-5)


def test_the_edge_of_a_frame_is_no_content():
    torch.manual_seed(0)
    experts = StepScale(SIZES["tiny"], "moe").experts
    flat = torch.randn(1, 48, 1, 1).expand(-1, -1, 4, 4)
    logits = experts.route(flat, torch.tensor([0.4]))
    torch.testing.assert_close(logits, logits[..., :1, :1].expand_as(logits))


def test_the_loss_of_a_scale_that_falls_is_seen():
    scale = StepScale(SIZES["tiny"], "single")
    content, quality = torch.randn(2, 48, 3, 4), torch.tensor([0.2, 0.9])
    assert regularisers([(scale, content)], quality)["monotonicity"].item() == 0
    scale.gain.points.data = scale.gain.points.data.flip(0)
    terms = regularisers([(scale, content)], quality)
    assert terms["monotonicity"].item() == pytest.approx(1.645 + 0.2, rel=1e-3)
    assert terms["load_balance"].item() == terms["router_z"].item() == 0


def test_a_collapsed_router_costs_more_than_an_even_one():
    torch.manual_seed(0)
    scale = StepScale(SIZES["tiny"], "moe")
    content, quality = torch.randn(2, 48, 4, 4), torch.tensor([0.2, 0.9])
    even = regularisers([(scale, content)], quality)["load_balance"]
    scale.experts.router_out[-1].bias.data[0] += 50.0
    collapsed = regularisers([(scale, content)], quality)["load_balance"]
    assert collapsed.item() == pytest.approx(0.01 * scale.experts.count, rel=1e-3)
    assert even < collapsed


def test_steps_by_the_hyper_latent_are_each_others_inverse():
    network = make(step="moe_hyper").network
    y, hyper = torch.randn(1, 48, 3, 4), torch.randn(1, 48, 3, 4)
    quality = torch.tensor([0.4])
    symbols = network.to_symbols(y, quality, hyper)
    torch.testing.assert_close(network.to_latent(Coded(symbols, hyper), quality), y)


# Training


def test_lambda_spans_its_range_geometrically():
    ends = lagrangian(torch.tensor([0.0, 0.5, 1.0]))
    expected = [65025 * v for v in (0.0018, math.sqrt(0.0018 * 0.0483), 0.0483)]
    torch.testing.assert_close(ends, torch.tensor(expected))


def rows_of(*names):
    files = [CONFIGS / f"{name}.yaml" for name in ("dual_domain", *names)]
    loaded = [yaml.safe_load(file.read_text()) for file in files]
    arguments, rows = {}, []
    for entry in loaded:
        arguments |= entry.get("model", {}).get("init_args", {})
        rows = entry.get("stages", rows)
    return {**arguments, "size": "tiny"}, [Stage(**row) for row in rows]


@pytest.mark.parametrize(
    "ablation",
    [
        None,
        "ablations/dual_domain/no_pixel_alignment",
        "ablations/dual_domain/separate_transforms",
    ],
)
def test_every_row_gives_what_it_trains_a_gradient(ablation):
    arguments, rows = rows_of(*([ablation] if ablation else []))
    torch.manual_seed(0)
    module = DualDomain(**arguments).train()
    for parameter in module.codec.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    clip = moving_clip(8, 64, 64).reshape(2, 4, 3, 64, 64)
    for number, row in enumerate(rows):
        module.start_stage(row, number, len(rows), 0)
        module.zero_grad(set_to_none=True)
        draw = module.draw(clip[:, : row.frames], torch.tensor([3, 4]), training=True)
        out = module.codec(draw.clip, draw.rate, **draw.conditions)
        loss = module.loss(module.terms(draw, out))
        loss.backward()
        dead = [
            name
            for name, parameter in module.codec.named_parameters()
            if parameter.requires_grad
            and (parameter.grad is None or not parameter.grad.any())
        ]
        assert dead == [], row.name
        assert loss.isfinite(), row.name


def test_the_prior_learns_from_latents_as_they_are():
    torch.manual_seed(0)
    module = DualDomain(size="tiny").train()
    clip = moving_clip(3)[None]
    row = Stage("prior", 1, 3, options={"objective": "prior"})
    module.start_stage(row, 0, 1, 0)
    draw = module.draw(clip, torch.tensor([3]), training=True)
    conditions = {"quality": draw.conditions["quality"]}
    trained = module.codec(clip, draw.rate, seeds=torch.tensor([3]), **conditions)
    module.codec.mode_decision = "inter"
    coded = module.codec.eval()(clip, draw.rate, **conditions)
    torch.testing.assert_close(
        trained.parts["latent"], coded.parts["latent"], rtol=1e-3, atol=1.0
    )
    assert not trained.x_hat.requires_grad
    module.codec.train()
    weights = [0.3, 1.0, 1.0]
    expected = (trained.bits * torch.tensor(weights)).mean() / (HEIGHT * WIDTH)
    rate = module.terms(draw, trained)["rate"]
    torch.testing.assert_close(rate, expected)


def test_experts_learn_ten_times_as_fast():
    module = DualDomain(size="tiny")
    module.start_stage(Stage("row", 10, 1, lr=1e-4, warmup=2), 0, 1, 0)
    optimizer = module.configure_optimizers()["optimizer"]
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([1e-4 / 2, 1e-3 / 2])
    counts = [sum(p.numel() for p in g["params"]) for g in optimizer.param_groups]
    network = module.codec.network
    experts = [network.encoder_steps.experts, network.decoder_steps.experts]
    assert counts[1] == sum(p.numel() for e in experts for p in e.parameters())
    assert sum(counts) == sum(p.numel() for p in network.parameters())
    # Rehearsals' rates are large enough for everyone.
    module.start_stage(Stage("row", 10, 1, lr=1e-2), 0, 1, 0)
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert [group["lr"] for group in groups] == [1e-2, 1e-2]
    module.start_stage(Stage("row", 1, 1, trainable=["network.flow"]), 0, 1, 0)
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert len(groups) == 1


def test_qualities_differ_from_frame_to_frame_and_weigh_by_their_lambda():
    module = DualDomain(size="tiny")
    clip = torch.rand(200, 3, 3, 16, 16)
    draw = module.draw(clip, torch.arange(200), training=True)
    quality = draw.conditions["quality"]
    assert quality.min() == 0 and quality.max() == 1
    assert 0.4 < float(draw.rate.mean()) < 0.6
    spread = (quality - draw.rate[:, None]).abs()
    assert 0.03 < float(spread.mean()) < 0.07 and spread.max() <= 0.1 + 1e-6
    torch.testing.assert_close(
        draw.frame_weights * draw.lmbda[:, None], lagrangian(quality)
    )


@pytest.mark.parametrize(
    ("row", "arguments", "message"),
    [
        ({"options": {"objectiv": "flow"}}, {}, "objectiv"),
        ({"options": {"objective": "flows"}}, {}, "flows"),
        ({"options": {"objective": "flow"}}, {"pixel_alignment": False}, "no flow"),
        ({"trainable": ["network.flows"]}, {}, "network.flows"),
        ({"weights": {"warp": 1.0}}, {}, "warp"),
    ],
)
def test_a_misspelt_row_is_refused(row, arguments, message):
    module = DualDomain(size="tiny", **arguments)
    with pytest.raises(ValueError, match=message):
        module.start_stage(Stage("row", 1, 3, **row), 0, 1, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "huge"}, "huge"),
        ({"references": 4}, "references is 4"),
        ({"step": "moes"}, "moes"),
        ({"quantiser": "mean_centred"}, "mode_decision to inter"),
        ({"transform": "separate", "pixel_alignment": False}, "warped frame"),
        ({"numeric": "float16"}, "float16"),
        ({"mode_decision": "best"}, "best"),
    ],
)
def test_arguments_that_make_no_codec_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DualDomainCodec(**{"size": "tiny", **arguments})


@pytest.mark.parametrize(
    ("size", "parameters"), [("base", 15.6e6), ("small", 7.2e6), ("tiny", 0.9e6)]
)
def test_sizes_have_the_parameters_that_were_planned(size, parameters):
    with torch.device("meta"):
        codec = DualDomainCodec(size)
    found = sum(p.numel() for p in codec.parameters())
    assert found == pytest.approx(parameters, rel=0.05)
