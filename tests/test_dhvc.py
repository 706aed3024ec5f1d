"""What is particular to DHVC: scales, lambda, references, lost packets, its sizes."""

import math
import struct
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from experiments.profile import count, main
from lightning_modules import DHVC
from lightning_modules.codec import DesyncError
from lightning_modules.dhvc.blocks import LambdaEmbedding, ResBlock
from lightning_modules.dhvc.codec import DHVCCodec
from lightning_modules.dhvc.entropy_model import (
    SIGMA_LEVELS,
    sigma_tables,
    split_prior,
)
from lightning_modules.dhvc.walk import State
from lightning_modules.entropy import SymbolDecoder, SymbolEncoder, gaussian_bits
from lightning_modules.layers import training_bits
from lightning_modules.stages import Stage

CONFIGS = Path(__file__).parents[1] / "experiments" / "configs"
SIZE = (50, 70)


def lively(gain=1.5, **arguments):
    """Return a codec of random weights whose latents are not all 0."""
    torch.manual_seed(3)
    codec = DHVCCodec("tiny", **arguments).eval()
    for name, parameter in codec.named_parameters():
        if name.endswith("posterior.1.weight"):
            parameter.data *= gain
        if name.endswith("constant"):
            parameter.data.normal_()
    return codec


@pytest.fixture(scope="module")
def full():
    return lively()


@pytest.fixture(scope="module")
def parallel():
    """Without the auxiliary path: the only one that survives losses."""
    return lively(auxiliary=False)


def scene(frames, height=SIZE[0], width=SIZE[1]):
    """A texture that pans, so that every frame differs and refers to the last."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(1, 3, 9, 12, generator=generator)
    wide = torch.nn.functional.interpolate(
        coarse, (height, width + 4 * frames), mode="bicubic"
    ).clamp(0, 1)[0]
    return torch.stack([wide[..., 3 * t : 3 * t + width] for t in range(frames)])


def coded(codec, frames, **options):
    """Return packets by frame and scale, and the encoder's own frames."""
    lmbda = codec.rate_knob.points[-1]
    packets = list(codec.compress(frames, lmbda, reconstruct=True, **options))
    groups = [
        packets[i : i + codec.scales] for i in range(0, len(packets), codec.scales)
    ]
    return groups, [group[-1].x_hat[0] for group in groups]


def received(codec, groups, lost=(), **options):
    """Decode without the packets ``lost``, each (frame, scale), both from 1."""
    packets = [
        None if (frame, scale) in lost else packet
        for frame, group in enumerate(groups, 1)
        for scale, packet in enumerate(group, 1)
    ]
    return list(codec.receive(packets, *SIZE, **options))


def same(shown, own):
    return [torch.equal(r.frame, frame) for r, frame in zip(shown, own, strict=True)]


# Sizes


def shipped(ablation=None):
    """Return the codec of a configuration, at the paper's size and without memory."""
    options = yaml.safe_load((CONFIGS / "dhvc.yaml").read_text())["model"]["init_args"]
    if ablation:
        path = CONFIGS / "ablations" / "dhvc" / f"{ablation}.yaml"
        options |= yaml.safe_load(path.read_text())["model"]["init_args"]
    with torch.device("meta"):
        return DHVC(**options).codec


@pytest.mark.parametrize(
    ("ablation", "parameters", "kmacs"),
    # What this structure counted when it was searched for, then the paper's.
    [
        (None, (108.338, 107.97), (405.23, 400.71)),
        ("plus_dec_parallel", (91.238, 91.07), (349.92, 349.44)),
        ("plus_pred", (91.238, None), (349.92, None)),
        ("plus_var", (91.3, None), (396.0, None)),
        ("base_dhvc_1", (None, 112.46), (None, 433.81)),
    ],
)
def test_the_ladder_has_the_published_complexity(ablation, parameters, kmacs):
    report = count(shipped(ablation), 256, 256)
    found = report["parameters"] / 1e6, report["kmacs_per_pixel"]["forward"]
    for value, (searched, paper) in zip(found, (parameters, kmacs), strict=True):
        if searched:
            assert value == pytest.approx(searched, rel=0.01)
        if paper:
            assert value == pytest.approx(paper, rel=0.05)
    published = report["published"]
    if kmacs[1]:
        assert published == {"parameters": parameters[1] * 1e6, "forward": kmacs[1]}
    else:
        assert not published


def test_profile_prints_the_papers_figures_beside_ours(capsys):
    files = [CONFIGS / "dhvc.yaml", CONFIGS / "rehearsal.yaml"]
    for configs, beside in ((files[:1], True), (files, False)):
        arguments = [part for file in configs for part in ("--config", str(file))]
        assert main([*arguments, "--height", "256", "--width", "256"]) == 0
        said = capsys.readouterr().out
        assert ("(paper: 107,970,000)" in said) == beside
        assert ("(paper: 400.71)" in said) == beside


def test_parts_add_up_and_coding_leaves_out_what_it_does_not_need():
    report = count(shipped("plus_dec_parallel"), 256, 256)
    kmacs = report["kmacs_per_pixel"]
    for key in ("encode", "decode"):
        parts = sum(entry[f"{key}_kmacs_per_pixel"] for entry in report["modules"])
        assert parts == pytest.approx(kmacs[key])
    assert sum(entry["parameters"] for entry in report["modules"]) == pytest.approx(
        report["parameters"], rel=0.001
    )
    # Encoding leaves out the tail, decoding the encoder and the posteriors.
    (tail,) = (e for e in report["modules"] if e["name"] == "network.tail")
    left_out = kmacs["forward"] - kmacs["encode"]
    assert left_out == pytest.approx(tail["decode_kmacs_per_pixel"])
    assert kmacs["decode"] == pytest.approx(142.1, rel=0.005)


@pytest.mark.parametrize(
    ("ablation", "more"),
    [("one_reference", -1), ("three_references", 1), ("five_references", 3)],
)
def test_a_reference_frame_costs_one_more_input_of_each_predictor(ablation, more):
    squares = 512**2 + 512**2 + 384**2 + 256**2
    found = sum(p.numel() for p in shipped(ablation).parameters())
    assert found == 108_337_504 + more * squares


# Lambda


def test_every_residual_block_follows_lambda(full):
    blocks = {n: m for n, m in full.named_modules() if isinstance(m, ResBlock)}
    # 9 of the encoder, 20 of the scales, 2 of the tail, 5 of the auxiliary path; D
    # has one less at the first scale.
    assert len(blocks) == 9 + 20 - 1 + 2 + 5
    embedding = full.network.embed(torch.tensor([256.0, 2048.0]))
    for name, block in blocks.items():
        channels = len(block.gain)
        x = torch.randn(1, channels, 4, 4).expand(2, -1, -1, -1)
        with torch.inference_mode():
            low, high = block(x, embedding)
        assert not torch.equal(low, high), name


def test_each_sample_of_a_batch_has_its_own_lambda(full):
    clip = scene(2)[None].expand(3, -1, -1, -1, -1)
    rates = torch.tensor([256.0, 2048.0, 256.0])
    with torch.inference_mode():
        together = full(clip, rates)
        alone = full(clip[:1], rates[1:2])
    torch.testing.assert_close(together.x_hat[1:2], alone.x_hat, rtol=1e-3, atol=1e-3)
    assert not torch.equal(together.x_hat[0], together.x_hat[1])
    assert not torch.equal(together.bits[0], together.bits[1])
    assert torch.equal(together.x_hat[0], together.x_hat[2])


def test_the_embedding_is_the_documented_one():
    embedding = LambdaEmbedding(256)
    seen = []
    embedding.layers.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0])
    )
    assert embedding(torch.tensor([512.0])).shape == (1, 256)
    position = 64 * math.log(512) / math.log(8192)
    angles = [position * 64 ** (-i / 127) for i in range(128)]
    expected = [*map(math.cos, angles), *map(math.sin, angles)]
    torch.testing.assert_close(seen[0][0], torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_a_model_of_fixed_rate_has_one_point_and_no_embedding():
    codec = DHVCCodec("tiny", (512, 512), variable_rate=False)
    assert codec.rate_knob.points == (512,)
    assert not [n for n, _ in codec.named_parameters() if "embedding" in n]
    assert not [n for n, _ in codec.named_parameters() if "modulation" in n]
    with pytest.raises(ValueError, match="one lambda"):
        DHVCCodec("tiny", variable_rate=False)


@pytest.mark.parametrize(
    ("arguments", "points"),
    [
        ({}, (256, 512, 1024, 2048)),
        ({"lmbda_range": (4, 32), "distortion": "ms_ssim"}, (4, 8, 16, 32)),
    ],
)
def test_lambdas_are_drawn_log_uniformly_within_the_range(arguments, points):
    module = DHVC("tiny", **arguments)
    assert module.codec.rate_knob.points == points
    clip = torch.rand(1, 1, 3, 8, 8).expand(4000, -1, -1, -1, -1)
    draw = module.draw(clip, torch.arange(4000), training=True)
    assert torch.equal(draw.lmbda, draw.rate)
    assert points[0] <= draw.rate.min() and draw.rate.max() <= points[-1]
    # Three octaves: a third of the samples in each.
    for low, high in pairwise(points):
        share = ((draw.rate >= low) & (draw.rate < high)).float().mean()
        assert 0.30 < share < 0.37
    cubic = DHVC("tiny", **arguments, lmbda_sampling="cube_root")
    more = cubic.draw(clip, torch.arange(4000), training=True).rate
    middle = ((points[0] ** (1 / 3) + points[-1] ** (1 / 3)) / 2) ** 3
    assert 0.47 < (more < middle).float().mean() < 0.53


# The entropy model


def test_sigma_stays_within_the_tables_and_its_gradient_alive():
    raw = torch.tensor([-1e3, -5.0, 0.0, 3.0, 100.0]).view(1, 5, 1, 1)
    parameters = torch.cat([raw, raw], dim=1).requires_grad_()
    mean, sigma = split_prior(parameters)
    assert torch.equal(mean, raw)
    middle = math.exp(math.log(1 + math.exp(2.3)) - 2.3)
    assert sigma.flatten()[[0, 2, 4]].tolist() == pytest.approx(
        [SIGMA_LEVELS.low, middle, SIGMA_LEVELS.high], rel=1e-5
    )
    for sign in (1.0, -1.0):
        parameters.grad = None
        (sign * split_prior(parameters)[1]).sum().backward()
        slope = parameters.grad[0, 5:].flatten()
        # Descent lowers what is too large, and raises what is too small.
        assert bool(slope[-1] != 0) == (sign > 0)
        assert bool(slope[1] != 0) == (sign < 0)
        assert slope[2:4].all()
    assert split_prior(parameters.bfloat16())[1].dtype == torch.float32


def test_training_bits_are_those_of_the_mass_and_never_flat():
    values = torch.linspace(-6, 6, 49)
    sigma = torch.tensor([0.5, 1.0, 4.0])[:, None].expand(-1, 49)
    exact = gaussian_bits(values.expand(3, -1), sigma, min_mass=1e-30)
    found = training_bits(values.expand(3, -1), sigma)
    near = exact < 19
    torch.testing.assert_close(found[near], exact[near], rtol=1e-4, atol=1e-4)
    density = math.exp(-0.5 * 7.5**2) / (4.0 * math.sqrt(2 * math.pi))
    assert float(training_bits(torch.tensor(30.0), torch.tensor(4.0))) == pytest.approx(
        -math.log2(density), rel=1e-5
    )
    far = torch.tensor([30.0, 1e3, 1e4], requires_grad=True)
    training_bits(far, torch.ones(3)).sum().backward()
    assert far.grad.isfinite().all() and (far.grad > 1).all()
    flat = torch.tensor([30.0, 1e3, 1e4], requires_grad=True)
    gaussian_bits(flat, torch.ones(3)).sum().backward()
    assert not flat.grad[1:].any()


def test_the_tables_cost_what_is_estimated_at_every_sigma():
    generator = torch.Generator().manual_seed(1)
    for sigma in (0.11, 0.3, 1.0, 5.0, 19.0, 21.0, 80.0, 256.0):
        scales = torch.full((20000,), sigma)
        values = torch.randn(20000, generator=generator).mul(sigma).round()
        indices = SIGMA_LEVELS.indices(scales).numpy()
        encoder = SymbolEncoder()
        encoder.push(values.numpy().astype(np.int32), indices, sigma_tables())
        data = encoder.finish()
        estimate = float(gaussian_bits(values, scales).sum())
        assert 8 * len(data) == pytest.approx(estimate, rel=0.01, abs=64)
        decoded = SymbolDecoder(data).pull(indices, sigma_tables())
        assert np.array_equal(decoded, values.numpy())
    assert len(sigma_tables()) == SIGMA_LEVELS.count


def test_real_bytes_are_the_estimated_ones_and_a_few():
    codec = lively(gain=0.5, auxiliary=False)
    clip = scene(2, 256, 256)
    groups, _ = coded(codec, clip)
    with torch.inference_mode():
        out = codec(clip[None], torch.tensor([2048.0]))
    for number, name in enumerate(out.parts):
        for frame, group in enumerate(groups):
            packet = group[number]
            estimate = float(out.parts[name][0, frame])
            assert packet.estimated_bits == pytest.approx(estimate, rel=1e-3, abs=0.5)
            spent = 8 * len(packet.payload)
            # Head, lambda and what a coder rounds up to.
            assert abs(spent - estimate) < 0.01 * estimate + 80
    assert list(out.parts) == ["scale1", "scale2", "scale3", "scale4"]
    torch.testing.assert_close(sum(out.parts.values()), out.bits)
    assert 2000 < float(out.bits[0, 0])


# Training


def test_every_scale_carries_gradients_of_rate_and_of_distortion():
    module = DHVC("tiny")
    module.train()
    clip = scene(2, 64, 64)[None]
    draw = module.draw(clip, torch.tensor([4]), training=True)
    for scale in range(1, 5):
        block = module.codec.network.scale(scale)[0]
        for term in ("rate", "distortion"):
            module.zero_grad()
            out = module.codec(draw.clip, draw.rate, **draw.conditions)
            module.terms(draw, out)[term].backward()
            for layer in (block.posterior[1], block.from_observed.reduce):
                assert layer.weight.grad.any(), (scale, term)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_the_bits_of_a_scale_do_not_depend_on_finer_ones(scale):
    codec = lively(auxiliary=False).train()
    out = codec(scene(3, 64, 64)[None], torch.tensor([512.0]))
    out.parts[f"scale{scale}"].sum().backward()
    for number in range(1, 5):
        gradient = codec.network.scale(number)[0].posterior[1].weight.grad
        assert bool(gradient.any()) == (number <= scale)


def test_taps_that_reach_beyond_every_crop_are_silent():
    module = DHVC("tiny")
    module.train()
    draw = module.draw(scene(2, 64, 64)[None], torch.tensor([4]), training=True)
    out = module.codec(draw.clip, draw.rate, **draw.conditions)
    module.loss(module.terms(draw, out)).backward()
    # At 1/32 the crop has 2 x 2 positions: of the taps 3 apart only one meets any.
    near, far, _ = module.codec.network.scale(2)[0].predictor[1].attention
    for conv, reached in ((near, 1), (far, 0)):
        centre = conv.kernel_size[0] // 2
        inside = slice(centre - reached, centre + reached + 1)
        for values in (conv.weight.grad, conv.weight.data):
            values = values.clone()
            assert values[..., centre, centre].any()
            values[..., inside, inside] = 0
            assert not values.any()


def test_the_rate_of_training_is_noisy_and_the_same_for_the_same_seed():
    module = DHVC("tiny")
    module.train()
    clip = scene(1, 64, 64)[None]
    rate = torch.tensor([512.0])
    bits = [
        module.codec(clip, rate, seeds=torch.tensor([seed])).bits for seed in (1, 1, 2)
    ]
    assert torch.equal(bits[0], bits[1])
    assert not torch.equal(bits[0], bits[2])
    module.codec.eval()
    rounded = [module.codec(clip, rate).bits for _ in range(2)]
    assert torch.equal(*rounded)


def test_scales_of_one_frame_and_frames_of_one_scale_share_no_noise(monkeypatch):
    streams = []

    def record(like, seeds, stream):
        streams.append(stream)
        return torch.zeros_like(like)

    monkeypatch.setattr("lightning_modules.dhvc.ports.uniform_noise", record)
    for structure, latents in (("dhvc2", 4), ("dhvc1", 5)):
        streams.clear()
        codec = DHVCCodec("tiny", structure=structure)
        codec.train()(torch.rand(1, 3, 3, 64, 64), torch.tensor([512.0]))
        assert len(streams) == len(set(streams)) == 3 * latents


def test_a_step_logs_the_bits_of_each_scale():
    module = DHVC("tiny")
    module.start_stage(Stage("one_frame", 1, 1), 0, 1, 0)
    logged = {}

    module._trainer = SimpleNamespace(
        global_step=0,
        loggers=[],
        world_size=1,
        optimizers=[torch.optim.SGD(module.parameters(), 0.1)],
        strategy=SimpleNamespace(reduce=lambda totals, reduce_op: totals),
    )
    module.log_dict = lambda figures, **_: logged.update(figures)
    clip = scene(2, 64, 64)[None]
    draw = module.draw(clip, torch.tensor([4]), training=True)
    out = module.codec(draw.clip, draw.rate, **draw.conditions)
    module._log_step(draw, out, {"loss": out.bits.sum()}, last=True)
    scales = [logged[f"train/scale{n}/bpp"] for n in range(1, 5)]
    assert sum(scales) == pytest.approx(logged["train/bpp"], rel=1e-5)
    assert logged["train/first/bpp"] == pytest.approx(
        float(out.bits[0, 0].detach() / 64**2)
    )


# References


def seen_by(codec, scale, clip):
    """Return what the predictor of a scale got for each frame: S, then references."""
    seen = []
    block = codec.network.scale(scale)[0]
    hook = block.predictor.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].clone())
    )
    with torch.inference_mode():
        codec(clip[None], torch.tensor([512.0]))
    hook.remove()
    width = codec.network.scale(scale).channels
    return [frame.split(width, dim=1) for frame in seen], block


@pytest.mark.parametrize("scale", [1, 4])
def test_references_are_the_two_last_frames_oldest_first(parallel, scale):
    decoded = []
    block = parallel.network.scale(scale)[0]
    hook = block.decode.register_forward_hook(
        lambda module, inputs, output: decoded.append(output.clone())
    )
    frames, block = seen_by(parallel, scale, scene(4))
    hook.remove()
    constant = block.temporal_constant.expand_as(decoded[0])
    expected = [
        (constant, constant),
        (constant, decoded[0]),
        (decoded[0], decoded[1]),
        (decoded[1], decoded[2]),
    ]
    for (_, *slots), wanted in zip(frames, expected, strict=True):
        assert len(slots) == 2
        assert all(torch.equal(a, b) for a, b in zip(slots, wanted, strict=True))


def test_five_reference_frames_are_five_slots():
    codec = lively(auxiliary=False, reference_frames=5)
    frames, block = seen_by(codec, 2, scene(7))
    counts = [
        sum(torch.equal(s, block.temporal_constant.expand_as(s)) for s in slots)
        for _, *slots in frames
    ]
    assert counts == [5, 4, 3, 2, 1, 0, 0]


def test_the_spatial_path_and_the_posterior_see_no_other_frame(parallel):
    clip = scene(2)
    other = clip.clone()
    other[0] = 1 - clip[0]
    mus, priors = [], []
    block = parallel.network.scale(1)[0]
    hooks = [
        block.posterior.register_forward_hook(lambda m, i, o: mus.append(o)),
        block.prior.register_forward_hook(lambda m, i, o: priors.append(o)),
    ]
    for frames in (clip, other):
        with torch.inference_mode():
            parallel(frames[None], torch.tensor([512.0]))
    for hook in hooks:
        hook.remove()
    assert torch.equal(mus[1], mus[3])
    assert not torch.equal(priors[1], priors[3])


def test_the_auxiliary_path_sees_clamped_pixels_in_training_and_coding(full):
    codec = lively()
    codec.network.tail.out.bias.data += 2.0
    seen = []
    codec.network.auxiliary.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].detach())
    )
    clip = scene(3)
    codec.train()
    out = codec(clip[None], torch.tensor([512.0]))
    assert out.x_hat.max() > 1.5
    codec.eval()
    list(codec.compress(clip, 512))
    assert len(seen) == 4
    for pixels in seen:
        assert pixels.min() >= -1 and pixels.max() == 1


def test_a_wider_or_higher_frame_keeps_each_scale_at_its_stride(full):
    for height, width in ((64, 192), (256, 64)):
        frame = torch.rand(1, 3, height, width)
        with torch.inference_mode():
            observed = full.network.encoder(frame, full.network.embed(torch.ones(1)))
        shapes = [tuple(x.shape[-2:]) for x in observed]
        assert shapes == [(height // s, width // s) for s in (64, 32, 16, 8)]


# Packets


def test_a_frame_is_one_packet_per_scale_and_the_last_completes_it(full):
    groups, own = coded(full, scene(3), intra_period=2)
    assert [[p.frames for p in group] for group in groups] == [[0, 0, 0, 1]] * 3
    assert [[len(p.x_hat) for p in group] for group in groups] == [[0, 0, 0, 1]] * 3
    heads = [[p.payload[0] for p in group] for group in groups]
    assert heads == [[8, 9, 10, 11], [0, 1, 2, 3], [8, 9, 10, 11]]
    assert same(received(full, groups), own) == [True] * 3
    assert all(p.estimated_bits > 0 for group in groups for p in group)


def test_lambda_travels_with_the_frame(parallel):
    clip = scene(2)
    for lmbda in (256.0, 300.3, 2048.0):
        packets = list(parallel.compress(clip, lmbda, reconstruct=True))
        frames = list(parallel.decompress(packets, *SIZE))
        assert torch.equal(frames[1], packets[-1].x_hat[0])
        found = np.frombuffer(packets[0].payload[1:5], dtype="<f4")[0]
        assert found == pytest.approx(lmbda, rel=1e-6)


def test_lambdas_that_float32_rounds_over_the_range_decode_and_others_do_not():
    codec = lively(lmbda_range=(0.1, 0.7), auxiliary=False)
    groups, own = coded(codec, scene(1))
    assert same(received(codec, groups), own) == [True]
    (first, *rest) = groups[0]
    for lmbda in (1e-3, 2.0, math.nan):
        head = first.payload[:1] + struct.pack("<f", lmbda)
        damaged = replace(first, payload=head + first.payload[5:])
        with pytest.raises(DesyncError, match="lambda is"):
            received(codec, [[damaged, *rest]])


def test_every_frame_that_is_not_intra_anyway_is_asked_for(parallel):
    asked = []
    coded(parallel, scene(7), intra_period=3, resync=lambda n: asked.append(n) or 0)
    assert asked == [1, 2, 4, 5]


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_progressive_decoding_reads_the_first_scales_only(parallel, scales):
    groups, own = coded(parallel, scene(4), intra_period=3)
    shown = received(parallel, groups, scales=scales)
    assert [r.scales for r in shown] == [scales] * 4
    lost = [(frame, s) for frame in range(1, 5) for s in range(scales + 1, 5)]
    without = received(parallel, groups, lost)
    assert all(
        torch.equal(a.frame, b.frame) for a, b in zip(shown, without, strict=True)
    )
    assert same(shown, own) == [False] * 4
    more = received(parallel, groups, scales=scales + 1)
    assert not any(
        torch.equal(a.frame, b.frame) for a, b in zip(shown, more, strict=True)
    )
    # At an intra frame, predictions of finer scales begin anew as well.
    alone = received(parallel, groups[3:], scales=scales)
    assert torch.equal(alone[0].frame, shown[3].frame)


def test_all_scales_are_the_whole_frame(parallel):
    groups, own = coded(parallel, scene(3))
    assert same(received(parallel, groups, scales=4), own) == [True] * 3


def test_scales_that_were_not_decoded_are_the_priors_mean(parallel):
    """The first frame from two scales, by hand."""
    groups, _ = coded(parallel, scene(1))
    network, means = parallel.network, []
    hooks = [
        network.scale(n)[0].prior.register_forward_hook(
            lambda m, i, o: means.append(split_prior(o)[0])
        )
        for n in (3, 4)
    ]
    added = []
    hooks += [
        network.scale(n)[0].restore.register_forward_pre_hook(
            lambda m, i: added.append(i[0])
        )
        for n in (3, 4)
    ]
    received(parallel, groups, scales=2)
    for hook in hooks:
        hook.remove()
    assert len(means) == 2
    assert all(torch.equal(a, b) for a, b in zip(means, added, strict=True))


@pytest.mark.parametrize(("echo", "slot_kept"), [(8, False), (12, False), (8, True)])
def test_a_lost_scale_spoils_frames_until_it_begins_anew(
    parallel, monkeypatch, echo, slot_kept
):
    if slot_kept:
        whole = State.without

        def without(self, first):
            fresh = whole(self, first)
            if first == 1:
                return fresh
            kept = tuple(old[:1] for old in self.past[first - 1 :])
            return State((*fresh.past[: first - 1], *kept), fresh.previous)

        monkeypatch.setattr(State, "without", without)
    frames = scene(14)
    again = lambda number: 4 if number == echo - 1 else 0  # noqa: E731
    groups, own = coded(parallel, frames, resync=again)
    if slot_kept:
        # An old feature in the older slot: the decoder never has the encoder's.
        with pytest.raises(DesyncError):
            received(parallel, groups, {(5, 4)})
        return
    shown = received(parallel, groups, {(5, 4)})
    spoilt = range(5, echo)
    expected = [frame not in spoilt for frame in range(1, 15)]
    assert same(shown, own) == expected
    assert [r.scales for r in shown] == [4 if good else 3 for good in expected]
    # Without the loss nothing differs, and the encoder's frames are those of one that
    # was never asked, until it was.
    assert same(received(parallel, groups), own) == [True] * 14
    _, never = coded(parallel, frames)
    before = [torch.equal(a, b) for a, b in zip(own, never, strict=True)]
    assert before == [frame < echo for frame in range(1, 15)]


def test_without_an_echo_a_lost_scale_stays_lost(parallel):
    groups, own = coded(parallel, scene(8))
    shown = received(parallel, groups, {(3, 4)})
    assert same(shown, own) == [True] * 2 + [False] * 6
    assert [r.scales for r in shown] == [4, 4] + [3] * 6


def test_a_lost_coarse_scale_takes_the_finer_ones_with_it(parallel):
    again = {7: 2, 9: 3}
    groups, own = coded(parallel, scene(12), resync=lambda n: again.get(n, 0))
    shown = received(parallel, groups, {(5, 2)})
    assert [r.scales for r in shown] == [4] * 4 + [1] * 3 + [4] * 5
    assert same(shown, own) == [True] * 4 + [False] * 3 + [True] * 5
    # The frame that begins anew loses a scale itself: the next echo mends it.
    shown = received(parallel, groups, {(5, 2), (8, 3)})
    assert [r.scales for r in shown] == [4] * 4 + [1] * 3 + [2] * 2 + [4] * 3
    assert same(shown, own) == [True] * 4 + [False] * 5 + [True] * 3
    # Beginning anew at a finer scale than the lost one mends nothing.
    shown = received(parallel, groups, {(5, 2), (8, 2)})
    assert [r.scales for r in shown] == [4] * 4 + [1] * 8


@pytest.mark.parametrize("period", [-1, 4])
def test_losing_the_first_scale_shows_a_frame_all_the_same(parallel, period):
    groups, own = coded(parallel, scene(6), intra_period=period)
    shown = received(parallel, groups, {(1, 1)})
    assert [r.scales for r in shown] == [0] * 4 + [0 if period < 0 else 4] * 2
    assert all(r.frame.isfinite().all() for r in shown)
    assert same(shown, own)[-1] == (period > 0)


def test_losses_at_one_scale_leave_the_coarser_ones_exact(parallel):
    groups, _ = coded(parallel, scene(6))
    symbols = []
    block = parallel.network.scale(3)[0]
    hook = block.prior.register_forward_hook(lambda m, i, o: symbols.append(o))
    for lost in ((), {(2, 4), (4, 4)}):
        received(parallel, groups, lost)
    hook.remove()
    for whole, with_loss in zip(symbols[:6], symbols[6:], strict=True):
        assert torch.equal(whole, with_loss)


def test_with_the_auxiliary_path_one_loss_spoils_every_scale(full):
    groups, own = coded(full, scene(7), intra_period=5)
    shown = received(full, groups, {(2, 4)})
    assert [r.scales for r in shown] == [4, 3, 0, 0, 0, 4, 4]
    assert same(shown, own) == [True] + [False] * 4 + [True] * 2
    priors = []
    hook = full.network.scale(1)[0].prior.register_forward_hook(
        lambda m, i, o: priors.append(o)
    )
    for lost in ((), {(2, 4)}):
        received(full, groups, lost)
    hook.remove()
    # Even the coarsest scale's, in the frame after the loss.
    assert torch.equal(priors[1], priors[8])
    assert not torch.equal(priors[2], priors[9])


def test_with_the_auxiliary_path_scales_alone_are_refused(full):
    groups, _ = coded(full, scene(2))
    with pytest.raises(ValueError, match="auxiliary: false"):
        received(full, groups, scales=3)
    with pytest.raises(ValueError, match=r"scale 4 cannot begin anew.*\[0, 1\]"):
        coded(full, scene(2), resync=lambda number: 4)
    groups, own = coded(full, scene(4), resync=lambda number: int(number == 2))
    assert [g[0].payload[0] for g in groups] == [8, 0, 8, 0]
    assert same(received(full, groups, {(2, 1)}), own) == [True, False, True, True]


@pytest.mark.parametrize("scales", [0, 5])
def test_scales_that_are_not_there_are_refused(parallel, scales):
    with pytest.raises(ValueError, match="1 to 4"):
        received(parallel, [], scales=scales)
    with pytest.raises(ValueError, match="cannot begin anew"):
        coded(parallel, scene(2), resync=lambda number: 5)


def test_packets_out_of_order_are_an_error(parallel):
    groups, _ = coded(parallel, scene(2))
    packets = [p for group in groups for p in group]
    for wrong, words in (
        ([packets[1], *packets[1:]], "scale 1"),
        ([*packets[:2], *packets[3:]], "scale 3"),
        (packets[:6], "ends after 2 of 4"),
        (packets[4:], "not there"),
    ):
        with pytest.raises(DesyncError, match=words):
            list(parallel.decompress(wrong, *SIZE))


def test_other_weights_are_an_error_and_not_noise(parallel):
    groups, _ = coded(parallel, scene(2))
    other = lively(auxiliary=False)
    other.network.scale(3)[0].prior.bias.data += 0.2
    with pytest.raises(DesyncError, match="scale 3"):
        received(other, groups)


def test_a_nan_in_the_weights_is_named_and_not_coded():
    codec = lively()
    codec.network.scale(2)[0].posterior[1].bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        coded(codec, scene(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "huge"}, "huge"),
        ({"strides": (64, 32, 16)}, "strides are"),
        ({"strides": (64, 32, 16, 4)}, "strides are"),
        ({"strides": (8, 4, 2, 1)}, "strides are"),
        ({"reference_frames": 0}, "reference_frames is 0"),
        ({"lmbda_range": (0, 32)}, "lmbda_range is"),
        ({"lmbda_range": (64, 32)}, "lmbda_range is"),
    ],
)
def test_arguments_that_make_no_codec_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DHVCCodec(**{"size": "tiny", **arguments})


def test_other_strides_code_and_decode():
    codec = lively(strides=(32, 16, 8, 4), auxiliary=False)
    assert codec.pad_multiple == 32
    groups, own = coded(codec, scene(2))
    assert same(received(codec, groups), own) == [True] * 2


def test_an_intra_period_of_zero_is_refused(parallel):
    with pytest.raises(ValueError, match="intra_period is 0"):
        coded(parallel, scene(2), intra_period=0)


@pytest.mark.gpu
def test_cuda_bytes_decode_on_cuda():
    codec = lively(auxiliary=False).cuda()
    groups, own = coded(codec, scene(5))
    assert same(received(codec, groups), own) == [True] * 5


def test_lambda_starts_loud_in_the_embedding_and_silent_in_the_blocks():
    network = DHVC("tiny").codec.network
    embedded = network.embed(torch.tensor([256.0, 512.0, 1024.0, 2048.0]))
    # Torch's own start gives 0.03 to 0.08.
    assert embedded.std(dim=0).mean() > 0.15
    modulated = [m for m in network.modules() if isinstance(m, ResBlock) and m.adaptive]
    assert modulated
    for block in modulated:
        assert block.modulation(embedded).abs().max() < 0.05


def test_what_every_block_pulls_at_learns_slower_where_rates_are_large():
    for size, factor in (("tiny", 0.01), ("paper", 1.0)):
        with torch.device("meta"):
            module = DHVC(size)
        module.stage = Stage("one", 1, 1, lr=0.5)
        optimizer = module.configure_optimizers()["optimizer"]
        others, embedding = optimizer.param_groups
        assert others["lr"] == 0.5
        assert embedding["lr"] == 0.5 * factor
        slower = {id(p) for p in module.codec.network.embedding.parameters()}
        assert {id(p) for p in embedding["params"]} == slower
        everything = {id(p) for p in module.codec.parameters()}
        assert {id(p) for p in others["params"]} == everything - slower
