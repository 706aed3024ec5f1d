"""What every codec promises, for every codec and every shipped configuration."""

import re
import subprocess
import sys
from collections import Counter
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml

import lightning_modules
from lightning_modules import load_codec
from lightning_modules.base import bits_to_bpp
from lightning_modules.clock import CodingClock
from lightning_modules.packets import DesyncError, Packet
from lightning_modules.stages import Stage

CONFIGS = Path(__file__).parents[2] / "experiments" / "configs"


def configurations():
    """Every codec configuration, and every ablation on top of its codec's.

    Each as name of the codec, arguments, rows of the schedule and the test's id.
    """
    for name in lightning_modules.CODECS:
        stem = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        base = yaml.safe_load((CONFIGS / f"{stem}.yaml").read_text())
        model, rows = base["model"], base["stages"]
        yield name, model["init_args"], rows, stem
        for path in sorted((CONFIGS / "ablations" / stem).glob("*.yaml")):
            ablation = yaml.safe_load(path.read_text())
            changed = ablation.get("model", {}).get("init_args", {})
            merged = {**model["init_args"], **changed}
            if "backbone" in merged and "half_3d" not in changed:
                # Ten times faster, and not what the ablation is about.
                merged["backbone"] = "lean_vae"
            rows_of_its_own = ablation.get("stages", rows)
            yield name, merged, rows_of_its_own, f"{stem}-{path.stem}"


def shipped():
    """The codecs of all configurations."""
    return [pytest.param((c[0], c[1]), id=c[3]) for c in configurations()]


@pytest.fixture(scope="session")
def build(lively_module):
    def build_tiny(name, arguments):
        changed = {"size": "tiny"}
        if "lpips" in arguments:
            # Needs no weights.
            changed["lpips"] = "random"
        if arguments.get("frames_per_unit", 1) > 5:
            # Two units are two units, whatever their length.
            changed["frames_per_unit"] = 5
        return lively_module(name, **{**arguments, **changed})

    return build_tiny


@pytest.fixture(params=shipped())
def module(request, build):
    """One of its own, for tests that change it."""
    return build(*request.param)


@pytest.fixture(scope="module", params=shipped())
def codec(request, build):
    """One for all tests that only code with it."""
    return build(*request.param).codec.eval()


def noise_clip(frames, height=48, width=64, batch=1):
    generator = torch.Generator().manual_seed(frames)
    coarse = torch.rand(batch * frames, 3, 6, 8, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return fine.reshape(batch, frames, 3, height, width)


def middle_rate(codec):
    points = codec.rate_knob.points
    return points[len(points) // 2]


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(48, 64), (50, 38), (17, 1)])
def test_any_size_and_any_count_keep_their_shape(codec, frames, size):
    clip = noise_clip(frames, *size)
    with torch.inference_mode():
        out = codec(clip, torch.tensor([middle_rate(codec)]))
    assert out.x_hat.shape == clip.shape
    assert out.bits.shape == clip.shape[:2]
    assert 0 <= out.x_hat.min() and out.x_hat.max() <= 1
    assert (out.bits >= 0).all() and out.bits.sum() > 0


@pytest.mark.parametrize("frames", [1, 4, 5])
@pytest.mark.parametrize("size", [(48, 64), (50, 38)])
def test_real_bytes_decode_to_the_encoders_own_frames(codec, frames, size):
    clip = noise_clip(frames, *size)[0]
    rate = middle_rate(codec)
    packets = list(codec.compress(clip, rate, reconstruct=True))
    own = torch.cat([packet.x_hat for packet in packets])
    stripped = [Packet(p.payload, p.frames, p.checksum) for p in packets]
    decoded = torch.stack(list(codec.decompress(stripped, *size)))
    assert torch.equal(decoded, own)
    assert sum(packet.frames for packet in packets) == frames
    assert all(sum(packet.histograms.values(), Counter()) for packet in packets)
    with torch.inference_mode():
        forward = codec(clip[None], torch.tensor([rate]))
    torch.testing.assert_close(forward.x_hat[0], own)
    estimated = sum(packet.estimated_bits for packet in packets)
    torch.testing.assert_close(float(forward.bits.sum()), estimated, rtol=1e-4, atol=1)


def test_showing_the_reconstruction_takes_none_of_the_encoders_time(
    module, monkeypatch
):
    codec = module.codec.eval()
    # Made once, by layers of the entropy model.
    assert codec.tables
    layers = [0]

    def count(*_):
        layers[0] += 1

    for layer in codec.modules():
        layer.register_forward_hook(count)
    monkeypatch.setattr(CodingClock, "now", lambda clock: layers[0])
    seconds = {}
    for reconstruct in (False, True):
        clock = CodingClock(torch.device("cpu"))
        packets = codec.compress(
            noise_clip(5)[0], middle_rate(codec), reconstruct=reconstruct
        )
        for packet in clock.watch(packets):
            assert bool(packet.histograms) == reconstruct
        seconds[reconstruct] = clock.seconds
    assert seconds[True] == seconds[False] > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_codes_and_decodes_exactly(module, dtype):
    codec = module.codec.eval().to(dtype)
    clip = noise_clip(3)[0]
    packets = list(codec.compress(clip, middle_rate(codec), reconstruct=True))
    decoded = torch.stack(list(codec.decompress(packets, 48, 64)))
    assert decoded.dtype == torch.float32
    assert torch.equal(decoded, torch.cat([p.x_hat for p in packets]))


def test_mixed_precision_trains_with_finite_gradients(module):
    module.train()
    clip = noise_clip(5, 64, 64, batch=2)
    draw = module.draw(clip, torch.arange(2), training=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module.codec(draw.clip, draw.rate, **draw.conditions)
        loss = module.loss(module.terms(draw, out))
    loss.backward()
    assert out.x_hat.dtype == out.bits.dtype == torch.float32
    gradients = [p.grad for p in module.codec.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)


def test_a_frame_does_not_depend_on_units_after_it(codec):
    start = max(4, codec.frames_per_unit)
    clip = noise_clip(start + 2)
    changed = clip.clone()
    changed[:, start:] = 1 - changed[:, start:]
    rate = torch.tensor([middle_rate(codec)])
    with torch.inference_mode():
        a, b = codec(clip, rate), codec(changed, rate)
    # A frame that two units share depends on both.
    end = min([start, *codec.boundaries(start + 2)])
    assert end >= start - 1
    assert torch.equal(a.x_hat[:, :end], b.x_hat[:, :end])
    assert torch.equal(a.bits[:, :end], b.bits[:, :end])
    assert not torch.equal(a.x_hat[:, end:], b.x_hat[:, end:])


def test_the_causality_check_can_fail(codec):
    clip = noise_clip(6)
    changed = clip.clone()
    changed[:, 1] = 1 - changed[:, 1]
    rate = torch.tensor([middle_rate(codec)])
    with torch.inference_mode():
        a, b = codec(clip, rate), codec(changed, rate)
    # Bits: where errors do not propagate, pixels would not tell.
    assert not torch.equal(a.bits[:, 2:], b.bits[:, 2:])


def test_every_trainable_parameter_gets_a_gradient(module):
    module.train()
    for parameter in module.codec.parameters():
        # Zero biases behind a blank reference would hide the layers after them.
        parameter.data += 0.01 * torch.randn_like(parameter)
    clip = noise_clip(7, 64, 64, batch=6)
    seeds = torch.arange(6)
    draw = module.draw(clip, seeds, training=True)
    out = module.codec(draw.clip, draw.rate, **draw.conditions)
    module.loss(module.terms(draw, out)).backward()
    dead = [
        name
        for name, parameter in module.codec.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    blank = draw.conditions.get("blank")
    if blank is not None and blank.all():
        # Its input is zero by definition of the ablation.
        dead.remove("network.adaptor_i.adaptor.weight")
    assert dead == []
    assert all(p.grad.isfinite().all() for p in module.codec.parameters())


def distinct(rows):
    """Stages of rows that differ in what they train or minimise, with short clips."""
    stages = {}
    for row in rows:
        what = {**Stage(**row).__dict__, "name": "", "steps": 1, "schedule": "constant"}
        what |= {"warmup": 0, "crop": 32, "batch_size": 2, "lr": 1e-3, "data": {}}
        what |= {"precision": None, "checkpoint_activations": False}
        what["frames"] = min(row["frames"], 2)
        stages.setdefault(repr(what), Stage(**{**what, "name": row["name"]}))
    return stages.values()


@pytest.mark.filterwarnings("ignore:stage .* trains groups")
@pytest.mark.parametrize(
    ("name", "arguments", "rows"),
    [pytest.param(*c[:3], id=c[3]) for c in configurations()],
)
def test_every_row_is_validated_by_a_loss_that_its_training_moves(
    build, name, arguments, rows
):
    module = build(name, arguments)
    middle = middle_rate(module.codec)
    module.rate_points = lambda: {"middle": middle}
    clip = noise_clip(2, 32, 32, batch=2)
    batch = {"clip": clip[:1], "index": torch.zeros(1).long(), "name": ["noise"]}

    def validate():
        module.eval()
        module.on_validation_epoch_start()
        with torch.no_grad():
            module.validation_step(batch, 0)
        return module._loss_sum[0]

    for stage in distinct(rows):
        module.start_stage(stage, 0, 1, 0)
        before = validate()
        module.train()
        optimizer = module.configure_optimizers()["optimizer"]
        draw = module.draw(clip[:, : stage.frames], torch.arange(2), training=True)
        out = module.codec(draw.clip, draw.rate, **draw.conditions)
        module.loss(module.terms(draw, out)).backward()
        optimizer.step()
        module.zero_grad()
        assert before != 0 and validate() != before, stage.name


def test_recomputed_activations_give_the_same_gradients(module):
    module.train()
    clip = noise_clip(5, 64, 64, batch=2)
    gradients = []
    for recompute in (False, True):
        module.codec.checkpoint_activations = recompute
        module.zero_grad()
        draw = module.draw(clip, torch.arange(2), training=True)
        out = module.codec(draw.clip, draw.rate, **draw.conditions)
        module.loss(module.terms(draw, out)).backward()
        gradients.append([p.grad.clone() for p in module.codec.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_a_codec_trains_after_it_has_coded(module):
    clip = noise_clip(3, 80, 80)
    rate = middle_rate(module.codec)
    module.codec.eval()
    packets = list(module.codec.compress(clip[0], rate))
    list(module.codec.decompress(packets, 80, 80))
    module.codec.train()
    out = module.codec(clip, torch.tensor([rate]))
    (out.bits.sum() + out.x_hat.sum()).backward()


def test_what_a_sample_draws_does_not_depend_on_its_batch(module):
    clip = noise_clip(7, 64, 64, batch=4)
    seeds = torch.tensor([5, 2**61, 7, 8])
    whole = module.draw(clip, seeds, training=True)
    part = module.draw(clip[2:], seeds[2:], training=True)
    assert torch.equal(whole.rate[2:], part.rate)
    assert torch.equal(whole.frame_weights[2:], part.frame_weights)
    for name, condition in part.conditions.items():
        assert torch.equal(whole.conditions[name][2:], condition), name
    # In float32 kernels round otherwise for a batch of 4 than for one of 2, and the
    # millions of bits of an untrained network multiply that.
    codec = deepcopy(module.train().codec).double()
    both, alone = (bits_in_float64(codec, each) for each in (whole, part))
    torch.testing.assert_close(both[2:], alone, rtol=1e-6, atol=1e-2)


def bits_in_float64(codec, draw):
    floats = {
        name: value.double() if value.is_floating_point() else value
        for name, value in draw.conditions.items()
    }
    return codec(draw.clip.double(), draw.rate.double(), **floats).bits


def test_a_rate_outside_the_range_is_refused(codec):
    with pytest.raises(ValueError, match=codec.rate_knob.name):
        list(codec.compress(noise_clip(1)[0], codec.rate_knob.high + 1))


def test_frames_of_two_sizes_are_refused(codec):
    frames = [torch.rand(3, 32, 32), torch.rand(3, 32, 48)]
    with pytest.raises(ValueError, match="one size"):
        list(codec.compress(frames, middle_rate(codec)))


def test_an_intra_period_cuts_every_dependency(codec):
    clip = noise_clip(2 * max(4, codec.frames_per_unit))[0]
    rate = middle_rate(codec)
    # Units that refer to no other are as long as they are, whatever the period.
    starts = codec.boundaries(len(clip)) or [4]
    packets = list(codec.compress(clip, rate, intra_period=4))
    whole = list(codec.decompress(packets, 48, 64))
    shown = 0
    second = 0
    while shown < 4:
        shown += packets[second].frames
        second += 1
    tail = list(codec.decompress(packets[second:], 48, 64))
    assert shown == starts[0]
    # A frame that two units share takes both.
    shared = shown + 1 in starts
    tail = torch.stack(tail[shared:])
    assert torch.equal(torch.stack(whole[shown + shared :]), tail)


def test_damaged_symbols_are_an_error_and_not_noise(codec):
    clip = noise_clip(4)[0]
    packets = list(codec.compress(clip, middle_rate(codec)))
    payload = bytearray(packets[0].payload)
    payload[len(payload) // 2] ^= 0x10
    damaged = Packet(bytes(payload), packets[0].frames, packets[0].checksum)
    with pytest.raises(DesyncError):
        list(codec.decompress([damaged], 48, 64))


def test_a_lost_packet_spoils_no_earlier_frame(codec):
    clip = noise_clip(max(6, 2 * codec.frames_per_unit + 1))[0]
    packets = list(codec.compress(clip, middle_rate(codec), intra_period=4))
    whole = list(codec.decompress(packets, 48, 64))
    ends = [number for number, packet in enumerate(packets, 1) if packet.frames]
    # Every packet of the second unit.
    for number in range(ends[0], ends[1]):
        lost = [*packets[:number], None, *packets[number + 1 :]]
        frames = list(codec.decompress(lost, 48, 64))
        assert len(frames) == len(whole)
        first = packets[ends[0] - 1].frames
        for a, b in zip(frames[:first], whole, strict=False):
            assert torch.equal(a, b)
        assert not torch.equal(frames[first], whole[first])
        assert torch.equal(frames[-1], whole[-1])


def test_memory_holds_one_unit_whatever_the_length(codec):
    pulled = 0

    def endless():
        nonlocal pulled
        while True:
            pulled += 1
            yield torch.full((3, 32, 32), 0.5)

    packets = codec.compress(endless(), middle_rate(codec))
    for _ in range(3):
        next(packets)
    assert pulled <= 3 * codec.frames_per_unit


def test_a_checkpoint_round_trip_keeps_the_fingerprint(
    module, save_checkpoint, tmp_path
):
    path = save_checkpoint(module, tmp_path / "last.ckpt")
    loaded = load_codec(path)
    assert loaded.fingerprint() == module.codec.eval().fingerprint()
    with torch.no_grad():
        next(module.codec.parameters()).view(-1)[0] += 1
    assert loaded.fingerprint() != module.codec.fingerprint()


DECODE = """
import sys, torch
from pathlib import Path
from lightning_modules import load_codec
from lightning_modules.packets import Packet
torch.set_num_threads(1)
for folder in Path(sys.argv[1]).iterdir():
    codec = load_codec(folder / "last.ckpt")
    entries = torch.load(folder / "packets.pt", weights_only=True)
    units = [Packet(bytes(b.tolist()), n, c) for b, n, c in entries]
    frames = torch.stack(list(codec.decompress(units, 50, 38)))
    torch.save(frames, folder / "frames.pt")
"""


def test_another_process_decodes_the_same_frames(build, save_checkpoint, tmp_path):
    own = {}
    for case in shipped():
        module = build(*case.values[0])
        folder = tmp_path / case.id
        folder.mkdir()
        save_checkpoint(module, folder / "last.ckpt")
        codec = module.codec.eval()
        clip = noise_clip(5, 50, 38)[0]
        packets = list(codec.compress(clip, middle_rate(codec), reconstruct=True))
        entries = [
            (
                torch.frombuffer(bytearray(p.payload), dtype=torch.uint8),
                p.frames,
                p.checksum,
            )
            for p in packets
        ]
        torch.save(entries, folder / "packets.pt")
        own[case.id] = torch.cat([p.x_hat for p in packets])
    # One process for all: its start takes longer than their frames.
    subprocess.run(
        [sys.executable, "-c", DECODE, str(tmp_path)],
        check=True,
        cwd=Path(__file__).parents[2],
    )
    differing = [
        case
        for case, frames in own.items()
        if not torch.equal(torch.load(tmp_path / case / "frames.pt"), frames)
    ]
    assert own and differing == []


def test_latents_are_what_is_coded(codec):
    latents = codec.latents
    frames, height, width = latents.block
    side = max(64, codec.pad_multiple)
    clip = noise_clip(2 * codec.frames_per_unit, side, side)[0]
    counts = [0]
    for packet in codec.compress(clip, middle_rate(codec), reconstruct=True):
        counts[-1] += sum(packet.histograms.values(), Counter()).total()
        if packet.frames:
            counts.append(0)
    blocks = codec.frames_per_unit // frames * (side // height) * (side // width)
    # The unit of the fewest symbols has no motion, but a hyper-latent.
    share = blocks * latents.numbers / min(counts[:-1])
    assert 0.75 < share <= 1


def test_bpp_counts_original_pixels(codec):
    clip = noise_clip(2, 50, 38)
    with torch.inference_mode():
        out = codec(clip, torch.tensor([middle_rate(codec)]))
    bpp = bits_to_bpp(out.bits, clip)
    torch.testing.assert_close(bpp, out.bits / (50 * 38))
