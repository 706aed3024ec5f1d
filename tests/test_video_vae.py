"""What is particular to VideoVAE: groups of pictures, its entropy model, its stages."""

import re
from itertools import islice
from pathlib import Path

import pytest
import torch

from experiments import decode, encode, profile
from lightning_modules import VideoVAE
from lightning_modules.codec import DesyncError, Packet
from lightning_modules.entropy import SymbolDecoder
from lightning_modules.perceptual import Lpips, UnavailableMetricError
from lightning_modules.stages import Stage
from lightning_modules.ui2c.codec import UI2CCodec
from lightning_modules.video_vae.codec import VideoVAECodec
from lightning_modules.video_vae.context import (
    SpaceChannelContext,
    channel_groups,
    checkerboard,
)
from lightning_modules.video_vae.gops import cut, join, padded_length
from lightning_modules.video_vae.packets import Head
from lightning_modules.video_vae.ports import DecodePort, EncodePort, EstimatePort

CONFIGS = Path(__file__).parents[1] / "experiments" / "configs"
SIZE = (32, 40)
SMALL = {"backbone": "lean_vae", "channels": 64, "halvings": 0, "frames_per_unit": 5}


def make_lively(codec):
    """Stretch the latents of random weights, so that there is something to code."""
    for name, parameter in codec.named_parameters():
        if re.search(r"latent_codec\.(hyper_)?encoder\.\d+\.weight$", name):
            parameter.data *= 4.0
    return codec


def lively(**arguments):
    torch.manual_seed(3)
    return make_lively(VideoVAECodec("tiny", **{**SMALL, **arguments})).eval()


@pytest.fixture
def codec():
    return lively()


def scene(frames, height=SIZE[0], width=SIZE[1]):
    """A texture that pans, so that every frame differs."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(1, 3, 9, 12, generator=generator)
    wide = torch.nn.functional.interpolate(
        coarse, (height, width + 4 * frames), mode="bicubic"
    ).clamp(0, 1)[0]
    return torch.stack([wide[..., 3 * t : 3 * t + width] for t in range(frames)])


def coded(codec, frames, **options):
    """Return packets as a file holds them, and the encoder's own frames."""
    packets = list(codec.compress(frames, 0.2, reconstruct=True, **options))
    own = torch.cat([packet.x_hat for packet in packets])
    return [Packet(p.payload, p.frames, p.checksum) for p in packets], own


def decoded(codec, packets):
    return torch.stack(list(codec.decompress(packets, *SIZE)))


# Groups of pictures


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("length", [5, 9])
def test_every_frame_is_shown_once_and_shared_frames_are_coded_twice(length, overlap):
    for count in range(1, 40):
        gops = list(cut(range(count), length, overlap))
        wanted = -(-(count - overlap) // (length - overlap))
        assert len(gops) == max(1, wanted)
        shown = 0
        for number, gop in enumerate(gops):
            assert gop.frames == list(
                range(gop.frames[0], gop.frames[0] + len(gop.frames))
            )
            assert gop.frames[0] == shown
            assert gop.blends == (overlap and number > 0)
            last = number == len(gops) - 1
            assert last or len(gop.frames) == length
            shared = len(gop.frames) - gop.shown
            assert shared == (overlap and not last)
            shown += gop.shown
        assert shown == count


def test_96_frames_are_the_papers_12_groups_against_11():
    assert len(list(cut(range(96), 9, True))) == 12
    assert len(list(cut(range(96), 9, False))) == 11


def test_cutting_looks_one_frame_ahead_and_no_further():
    pulled = []
    source = (pulled.append(i) or i for i in range(1000))
    for number, _ in enumerate(islice(cut(source, 9, True), 3), 1):
        assert len(pulled) == 8 * number + 2
    pulled.clear()
    next(cut((pulled.append(i) or i for i in range(1000)), 9, False))
    assert len(pulled) == 9


def test_lengths_are_padded_to_the_next_4n_plus_1():
    assert [padded_length(n) for n in range(1, 11)] == [1, 5, 5, 5, 5, 9, 9, 9, 9, 13]


def test_a_shared_frame_is_the_mean_of_both_copies_before_any_clamp():
    first = torch.full((5, 3, 2, 2), 1.6)
    complete, held = join(first, 4, False, None)
    assert complete.shape[0] == 4 and held.shape[0] == 1
    second = torch.full((5, 3, 2, 2), 0.2)
    complete, held = join(second, 5, True, held)
    torch.testing.assert_close(complete[0], torch.full((3, 2, 2), 0.9))
    assert torch.equal(complete[1:], second[1:])
    assert held.shape[0] == 0
    alone, _ = join(second, 5, True, None)
    assert torch.equal(alone, second)


def test_boundaries_are_where_the_groups_that_a_frame_is_from_change():
    with_overlap, without = lively(), lively(overlap=False)
    assert with_overlap.boundaries(12) == [4, 5, 8, 9]
    assert without.boundaries(12) == [5, 10]
    assert with_overlap.boundaries(5) == without.boundaries(5) == []
    assert with_overlap.boundaries(6) == [4, 5]


def test_the_bits_of_overlap_are_the_ratio_of_coded_groups(codec):
    still = scene(1).expand(25, -1, -1, -1)
    sizes = {}
    for overlap in (True, False):
        codec.configure(overlap=overlap)
        packets, _ = coded(codec, still)
        sizes[overlap] = [len(packet.payload) for packet in packets]
        assert sum(packet.frames for packet in packets) == 25
    assert len(sizes[True]) == 6 and len(sizes[False]) == 5
    # Of a still picture all groups are alike.
    assert sum(sizes[True]) * 5 == sum(sizes[False]) * 6


def test_estimated_bits_are_spread_over_the_frames_that_a_group_completes(codec):
    clip = scene(7)
    with torch.inference_mode():
        out = codec(clip[None], torch.tensor([0.2]))
    packets = list(codec.compress(clip, 0.2, reconstruct=True))
    assert [packet.frames for packet in packets] == [4, 3]
    shares = [p.estimated_bits / p.frames for p in packets for _ in range(p.frames)]
    torch.testing.assert_close(out.bits[0], torch.tensor(shares), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(out.parts["y"] + out.parts["z"], out.bits)


# Streams


@pytest.mark.parametrize("count", [1, 5, 6, 14])
def test_any_number_of_groups_side_by_side_gives_the_same_bits(codec, count):
    frames = scene(count)
    packets, own = coded(codec, frames)
    for batch in (2, 4):
        codec.configure(gop_batch=batch)
        again, same = coded(codec, frames)
        assert again == packets
        assert torch.equal(same, own)
        assert torch.equal(decoded(codec, packets), own)


def test_a_stream_says_itself_whether_groups_overlap(codec):
    packets, own = coded(codec, scene(9))
    codec.configure(overlap=False)
    assert torch.equal(decoded(codec, packets), own)
    packets, apart = coded(codec, scene(9))
    codec.configure(overlap=True)
    assert torch.equal(decoded(codec, packets), apart)
    assert not torch.equal(own, apart)


def test_overlap_changes_the_shared_frame_alone():
    """Both groups code the same frames here; only one shows a mean."""
    codec = lively()
    frames = scene(6)
    _, own = coded(codec, frames)
    copies = [coded(codec, part)[1] for part in (frames[:5], frames[4:])]
    assert torch.equal(own[:4], copies[0][:4])
    assert torch.equal(own[5:], copies[1][1:])
    mean = (copies[0][4] + copies[1][0]) / 2
    # The copies are clamped already, which the mean of what was decoded is not.
    inside = ((copies[0][4] - 0.5).abs() < 0.5) & ((copies[1][0] - 0.5).abs() < 0.5)
    torch.testing.assert_close(own[4][inside], mean[inside])
    assert inside.any()


def test_a_stream_says_itself_how_large_tiles_are(codec):
    frames = scene(5, 64, 64)
    whole = list(codec.compress(frames, 0.2))
    codec.configure(tile=40)
    packets = list(codec.compress(frames, 0.2, reconstruct=True))
    assert [p.payload for p in packets] != [p.payload for p in whole]
    codec.configure(tile=0)
    shown = torch.stack(list(codec.decompress(packets, 64, 64)))
    assert torch.equal(shown, packets[0].x_hat)


def test_an_intra_period_changes_nothing(codec):
    assert coded(codec, scene(9), intra_period=3)[0] == coded(codec, scene(9))[0]
    with pytest.raises(ValueError, match="intra_period is 0"):
        list(codec.compress(scene(1), 0.2, intra_period=0))


def test_real_bytes_are_what_was_estimated(codec):
    packets = list(codec.compress(scene(9), 0.2, reconstruct=True))
    for packet in packets:
        bits = 8 * len(packet.payload)
        # The head's byte, 16 bits of the coder's state, rounding up to a byte or word.
        assert abs(bits - packet.estimated_bits) < 0.02 * packet.estimated_bits + 56


@pytest.mark.parametrize("batch", [1, 3])
def test_a_lost_packet_spoils_its_group_and_the_shared_frames(codec, batch):
    source = scene(17)
    packets, own = coded(codec, source)
    codec.configure(gop_batch=batch)
    frames = decoded(codec, [packets[0], None, *packets[2:]])
    assert len(frames) == 17
    assert torch.equal(frames[:4], own[:4])
    # The frame that the lost group shares with the one before was decoded there.
    held = coded(codec, source[:5])[1][4]
    assert all(torch.equal(frame, held) for frame in frames[4:8])
    # The next group's own copy, and nothing of the lost one.
    assert torch.equal(frames[8], coded(codec, source[8:13])[1][0])
    assert torch.equal(frames[9:], own[9:])


def test_a_lost_beginning_is_grey_and_a_lost_end_long_enough(codec):
    packets, own = coded(codec, scene(9))
    frames = decoded(codec, [None, packets[1]])
    assert len(frames) == 9
    assert (frames[:4] == 0.5).all()
    assert torch.equal(frames[5:], own[5:])
    assert len(decoded(codec, [packets[0], None])) == 9
    codec.configure(overlap=False)
    packets, _ = coded(codec, scene(10))
    assert len(decoded(codec, [packets[0], None])) == 10


def test_frames_before_damage_are_shown_however_many_groups_run(codec):
    packets, own = coded(codec, scene(17))
    bad = Packet(packets[2].payload, packets[2].frames, packets[2].checksum ^ 1)
    codec.configure(gop_batch=4)
    frames = codec.decompress([*packets[:2], bad, packets[3]], *SIZE)
    shown = []
    with pytest.raises(DesyncError, match="checksum"):
        for frame in frames:
            shown.append(frame)
    assert torch.equal(torch.stack(shown), own[:8])


@pytest.mark.parametrize(
    ("payload", "frames", "message"),
    [
        (b"", 1, "no whole head"),
        (b"\x41\x00", 1, "no whole head"),
        (b"\x01\x00", 6, "5 coded frames cannot complete 6"),
        (b"\x01\x00", 0, "cannot complete 0"),
        (b"\x01", 5, "cannot be read"),
    ],
)
def test_a_packet_that_is_none_is_refused(codec, payload, frames, message):
    with pytest.raises(DesyncError, match=message):
        list(codec.decompress([Packet(payload, frames, 0)], *SIZE))


def test_the_checksum_covers_the_head(codec):
    packets, _ = coded(codec, scene(6))
    payload = bytes([packets[1].payload[0] ^ 128, *packets[1].payload[1:]])
    assert Head.read(packets[1]).blends
    changed = Packet(payload, packets[1].frames, packets[1].checksum)
    with pytest.raises(DesyncError, match="checksum"):
        list(codec.decompress([packets[0], changed], *SIZE))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gop_batch": 0}, "gop_batch is 0"),
        ({"tile": 100}, "multiples of 8"),
        ({"tile": 1 << 16}, "65536"),
        ({"gop": 4}, "cannot set gop"),
    ],
)
def test_options_that_make_no_sense_are_refused(codec, options, message):
    with pytest.raises(ValueError, match=message):
        codec.configure(**options)
    with pytest.raises(ValueError, match=f"UI2CCodec cannot set {next(iter(options))}"):
        UI2CCodec("tiny").configure(**options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "huge"}, "'huge' is unknown"),
        ({"channels": 40}, "channels is 40"),
        ({"halvings": 3}, "halvings is 3"),
        ({"frames_per_unit": 8}, "frames_per_unit is 8"),
        ({"frames_per_unit": 1}, "frames_per_unit is 1"),
        ({"lmbda": 0.0}, "lmbda is 0"),
    ],
)
def test_an_impossible_architecture_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        VideoVAECodec(**{"size": "tiny", **SMALL, **arguments})


def test_the_rate_is_the_models_lambda_and_nothing_else():
    codec = lively(lmbda=0.05)
    assert codec.rate_knob.points == (0.05,)
    for rate in (0.04, 0.06):
        with pytest.raises(ValueError, match=r"lmbda.*0\.05"):
            list(codec.compress(scene(1), rate))


# The entropy model


@pytest.mark.parametrize(
    ("channels", "groups"),
    [
        (16, (16,)),
        (64, (16, 16, 32)),
        (128, (16, 16, 32, 64)),
        (192, (16, 16, 32, 64, 64)),
        (320, (16, 16, 32, 64, 192)),
    ],
)
def test_channels_fall_into_elics_groups(channels, groups):
    assert channel_groups(channels) == groups


def small_context():
    torch.manual_seed(0)
    return SpaceChannelContext((2, 3), 6, (8, 4)).eval()


class Recorder:
    """Notes the means and keeps every value."""

    def __init__(self):
        self.steps = []

    def y(self, residual, scale, keep):
        self.steps.append((residual.clone(), scale.clone(), keep))
        return residual * keep


def scales_of(context, y, hyper):
    port = Recorder()
    with torch.inference_mode():
        context(y, hyper, port)
    return port.steps


def test_no_step_sees_itself_or_a_later_one():
    context = small_context()
    y, hyper = torch.randn(3, 5, 5, 7), torch.randn(3, 6, 5, 7)
    before = scales_of(context, y, hyper)
    board = checkerboard(5, 7, y.device)
    masks = [(slice(0, 2), board), (slice(0, 2), ~board)]
    masks += [(slice(2, 5), board), (slice(2, 5), ~board)]
    for step, (channels, keep) in enumerate(masks):
        changed = y.clone()
        changed[:, channels] += keep
        after = scales_of(context, changed, hyper)
        for earlier in range(step + 1):
            assert torch.equal(before[earlier][1], after[earlier][1])
        for later in range(step + 1, 4):
            # The first colour of a group sees other groups only.
            own_group_done = later == step + 1 and step % 2 == 0
            seen = before[later][1] != after[later][1]
            assert seen[..., before[later][2]].any() or (
                own_group_done and not seen.any()
            )


def test_time_steps_do_not_see_each_other_in_the_context():
    context = small_context()
    y, hyper = torch.randn(3, 5, 4, 4), torch.randn(3, 6, 4, 4)
    changed = y.clone()
    changed[0] += 1
    for a, b in zip(
        scales_of(context, y, hyper), scales_of(context, changed, hyper), strict=True
    ):
        assert torch.equal(a[1][1:], b[1][1:])


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (4, 1), (3, 2)])
def test_odd_sizes_and_single_positions_come_back(codec, size):
    context, tables = small_context(), codec.tables
    y, hyper = 4 * torch.randn(3, 5, *size), torch.randn(3, 6, *size)
    with torch.inference_mode():
        port = EncodePort(tables, estimate=True)
        y_hat = context(y, hyper, port)
        again = DecodePort(SymbolDecoder(port.encoder.finish()), tables)
        assert torch.equal(context(None, hyper, again), y_hat)
        estimate = EstimatePort(torch.zeros(1), None)
        assert torch.equal(context(y, hyper, estimate), y_hat)
    # Of its mean, which is between.
    assert (y_hat - y).abs().max() <= 0.5 + 1e-5
    torch.testing.assert_close(float(estimate.y_bits), port.bits, rtol=1e-4, atol=0.1)


# Sizes


def shipped(ablation=None):
    configs = ["video_vae.yaml"]
    if ablation:
        configs.append(f"ablations/video_vae/{ablation}.yaml")
    with torch.device("meta"):
        return profile.build_codec([str(CONFIGS / name) for name in configs])


@pytest.mark.parametrize(
    ("ablation", "parameters", "kmacs"),
    [
        (None, 13.3, 20.4),
        ("channels_64", 4.44, 6.5),
        ("channels_192", 27.5, 42.8),
        ("latent_stride_8", 11.3, 52.3),
        ("latent_stride_32", 15.3, 12.4),
    ],
)
def test_the_latent_codec_has_the_designs_complexity(ablation, parameters, kmacs):
    codec = shipped(ablation)
    found = sum(p.numel() for p in codec.latent_codec.parameters())
    assert found / 1e6 == pytest.approx(parameters, rel=0.01)
    # The design ran each group's spatial context twice, which took 2 %.
    del codec.backbone
    codec.backbone = torch.nn.Identity()
    codec.backbone.encode = codec.backbone.decode = lambda x: x
    run = codec.passes(256, 256)["latent_codec"]
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        with torch.no_grad():
            run()
    measured = counter.get_total_flops() / 2 / (9 * 256 * 256) / 1e3
    assert measured == pytest.approx(kmacs, rel=0.03)


def test_profile_prints_the_latent_codecs_share(capsys):
    arguments = ["--config", str(CONFIGS / "video_vae.yaml"), "--config"]
    arguments += [str(CONFIGS / "ablations/video_vae/lean_vae.yaml")]
    assert profile.main([*arguments, "--height", "256", "--width", "256"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"latent_codec +20\.0\d kMACs/pixel", said)
    assert re.search(r"latent_codec\.context +4,604,437", said)
    encode_, decode_ = (
        float(re.search(rf"{name} +([\d.]+) kMACs", said)[1])
        for name in ("encode", "decode")
    )
    assert encode_ == pytest.approx(59.2 + 13.6, rel=0.01)
    assert decode_ == pytest.approx(148.5 + 15.6, rel=0.01)


# Training


def module(**arguments):
    torch.manual_seed(3)
    built = VideoVAE(**{"size": "tiny", **SMALL, "lpips": "random", **arguments})
    make_lively(built.codec)
    return built.train()


VAE = Stage("vae", 1, 5, trainable=["backbone"], weights={"rate": 0.0})
LATENT = Stage("latent_codec", 1, 5, trainable=["latent_codec"])


def step(trained, stage=None):
    if stage:
        trained.start_stage(stage, 0, 1, 0)
    draw = trained.draw(scene(5)[None], torch.arange(1), training=True)
    out = trained.codec(draw.clip, draw.rate, **draw.conditions)
    return draw, out, trained.terms(draw, out)


@pytest.mark.parametrize(("scale", "factor"), [("255", 255**2), ("sum01", 3 * 32 * 40)])
def test_the_loss_is_the_papers(scale, factor):
    trained = module(lmbda=0.1, alpha=2e-3, beta=0.5, mse_scale=scale)
    draw, out, terms = step(trained)
    error = (out.x_hat - draw.clip).square().mean()
    lpips = trained.perceptual.network(2 * out.x_hat[0] - 1, 2 * draw.clip[0] - 1)
    wanted = {
        "rate": out.bits.sum() / (5 * 32 * 40),
        "distortion": 0.1 * 2e-3 * factor * error,
        "lpips": 0.1 * 0.5 * lpips.mean(),
    }
    assert terms.keys() == wanted.keys() == set(trained.loss_terms)
    for name, value in wanted.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(trained.loss(terms), sum(wanted.values()))


def test_the_first_stage_trains_the_vae_on_its_own_latent():
    trained = module()
    draw, out, terms = step(trained, VAE)
    vae = trained.codec.backbone
    padded = torch.nn.functional.pad(draw.clip, (0, 24, 0, 0, 0, 0), mode="replicate")
    torch.testing.assert_close(out.x_hat, vae.decode(vae.encode(padded))[..., :40])
    assert not out.bits.any()
    # Equation 1 has no lambda.
    error = (out.x_hat - draw.clip).square().mean()
    torch.testing.assert_close(terms["distortion"], 1e-3 * 255**2 * error)
    trained.loss(terms).backward()
    assert all(p.grad is None for p in trained.codec.latent_codec.parameters())
    assert all(p.grad is not None for p in vae.parameters())
    validation = trained.draw(scene(5)[None], torch.arange(1), training=False)
    assert bool(validation.conditions["uncoded"])


def test_the_second_stage_costs_the_vae_no_gradients():
    trained = module()
    latents = []
    encoder = trained.codec.backbone.encoder
    encoder.register_forward_hook(lambda *_: latents.append(_[-1].requires_grad))
    _, _, terms = step(trained, LATENT)
    trained.loss(terms).backward()
    assert latents == [False]
    assert all(p.grad is None for p in trained.codec.backbone.parameters())
    # Only through the decoder of the VAE.
    synthesis = trained.codec.latent_codec.decoder.parameters()
    assert all(p.grad is not None and p.grad.any() for p in synthesis)
    step(trained, Stage("all", 1, 5))
    assert latents == [False, True]


def test_a_stage_without_bits_cannot_train_the_latent_codec():
    with pytest.raises(ValueError, match=r"'vae'.*trainable to \[backbone\]"):
        module().start_stage(Stage("vae", 1, 5, weights={"rate": 0}), 0, 1, 0)


def test_a_stage_of_shorter_groups_than_are_coded_is_warned_of():
    trained = module(frames_per_unit=9)
    with pytest.warns(UserWarning, match="groups of 5 frames, but 9 will be coded"):
        trained.start_stage(LATENT, 0, 1, 0)


def test_only_matrices_and_kernels_decay():
    trained = module(weight_decay=0.3)
    trained.start_stage(LATENT, 0, 1, 0)
    groups = trained.configure_optimizers()["optimizer"].param_groups
    decays = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    names = dict(trained.codec.latent_codec.named_parameters())
    assert len(decays) == len(names)
    for name, parameter in names.items():
        kernel = parameter.ndim > 1 and not name.startswith("prior.")
        assert decays[id(parameter)] == (0.3 if kernel else 0.0)


# LPIPS


def test_lpips_is_no_part_of_the_model():
    trained = module()
    names = set(trained.state_dict())
    _, _, terms = step(trained)
    terms["lpips"].backward()
    trained.train()
    assert set(trained.state_dict()) == names
    assert not any("perceptual" in n or "lin" in n.split(".") for n in names)
    network = trained.perceptual.network
    assert not any(p.requires_grad for p in network.parameters())
    assert not any(m.training for m in network.modules())


def test_missing_weights_stop_a_stage_that_needs_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    trained = module(lpips="vgg")
    place = re.escape(str(tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"))
    with pytest.raises(UnavailableMetricError, match=f"{place}.*--model.lpips random"):
        trained.start_stage(LATENT, 0, 1, 0)
    module(lpips="vgg", beta=0.0).start_stage(LATENT, 0, 1, 0)


def test_the_stand_in_is_the_same_every_time():
    torch.manual_seed(0)
    a, b = torch.rand(2, 2, 3, 32, 32)
    after = torch.rand(1)
    torch.manual_seed(0)
    torch.rand(2, 2, 3, 32, 32)
    from lightning_modules import perceptual

    perceptual._random_network.cache_clear()
    first = Lpips("random")(a, b)
    # Nor does it disturb anything else that is random.
    assert torch.equal(torch.rand(1), after)
    perceptual._random_network.cache_clear()
    assert torch.equal(Lpips("random")(a, b), first)
    assert (first > 0).all()
    assert not Lpips("random")(a, a).any()


def test_lpips_has_finite_gradients_where_features_are_zero():
    distance = Lpips("random")
    features = [torch.zeros(1, 4, 2, 2, requires_grad=True)]
    from lightning_modules.perceptual import _unit

    _unit(features[0]).sum().backward()
    assert features[0].grad.isfinite().all()
    x_hat = torch.zeros(1, 3, 32, 32, requires_grad=True)
    distance(x_hat, torch.rand(1, 3, 32, 32)).sum().backward()
    assert x_hat.grad.isfinite().all() and x_hat.grad.any()


# Commands


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A checkpoint, a video of eleven frames and a checkpoint of another codec."""
    from datamodules.writing import create_video
    from lightning_modules import UI2C

    folder = tmp_path_factory.mktemp("video_vae")
    for name, built in (("vae", module()), ("ui2c", UI2C("tiny"))):
        checkpoint = {"state_dict": built.state_dict(), "global_step": 0}
        built.on_save_checkpoint(checkpoint)
        torch.save(checkpoint, folder / f"{name}.ckpt")
    with create_video(folder / "in.y4m", SIZE[1], SIZE[0], 25) as video:
        for frame in scene(11):
            video.write(frame)
    return folder


def test_commands_code_groups_side_by_side_with_the_same_bits(files, capsys):
    source, checkpoint = (
        str(files / "in.y4m"),
        ["--checkpoint", str(files / "vae.ckpt")],
    )
    checkpoint += ["--device=cpu"]
    digests = {}
    for batch in ("1", "4"):
        out = str(files / f"{batch}.lvc")
        options = [*checkpoint, "--rate=0.2", f"--gop_batch={batch}"]
        assert encode.main([source, out, *options]) == 0
        other = f"--gop_batch={5 - int(batch)}"
        assert decode.main([out, "--hash", *checkpoint, other]) == 0
        digests[batch] = capsys.readouterr().out.split()[-1]
    assert (files / "1.lvc").read_bytes() == (files / "4.lvc").read_bytes()
    assert digests["1"] == digests["4"]
    apart = str(files / "apart.lvc")
    options = [*checkpoint, "--rate=0.2", "--gop_overlap=off"]
    assert encode.main([source, apart, *options]) == 0
    assert decode.main([apart, "--hash", *checkpoint]) == 0
    assert capsys.readouterr().out.split()[-1] != digests["1"]


@pytest.mark.parametrize("option", ["--gop_batch=2", "--gop_overlap=on", "--tile=576"])
def test_commands_refuse_what_another_codec_does_not_have(files, capsys, option):
    arguments = [str(files / "in.y4m"), str(files / "no.lvc"), "--rate=1", option]
    arguments += ["--checkpoint", str(files / "ui2c.ckpt"), "--device=cpu"]
    assert encode.main(arguments) == 2
    assert "UI2CCodec cannot set" in capsys.readouterr().err
    assert not (files / "no.lvc").exists()


def test_decode_refuses_it_too(files, capsys):
    stream, checkpoint = str(files / "ui2c.lvc"), str(files / "ui2c.ckpt")
    shared = ["--checkpoint", checkpoint, "--device=cpu"]
    arguments = [str(files / "in.y4m"), stream, "--rate=1", "--max_frames=1", *shared]
    assert encode.main(arguments) == 0
    assert decode.main([stream, "--hash", "--gop_batch=2", *shared]) == 2
    assert "UI2CCodec cannot set gop_batch" in capsys.readouterr().err
