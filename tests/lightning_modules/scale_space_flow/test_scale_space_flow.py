"""What is ScaleSpaceFlow's own: the library's network, its weights, its late import."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments.fit.weights import init_from
from experiments.results.origin import describe
from lightning_modules import load_codec
from lightning_modules.scale_space_flow import released
from lightning_modules.scale_space_flow.codec import ScaleSpaceFlowCodec
from lightning_modules.scale_space_flow.entropy_model import Bottleneck, medians
from lightning_modules.scale_space_flow.network import PARTS, build_network, predict
from lightning_modules.stages import Stage

ROOT = Path(__file__).parents[3]
LMBDA = torch.tensor([0.01])


@pytest.fixture(scope="module")
def codec(lively_module):
    """One whose hyper-latents are rounded around something else than 0."""
    codec = lively_module("ScaleSpaceFlow").codec.eval()
    for part in PARTS:
        bottleneck = getattr(codec.network, f"{part}_hyperprior").entropy_bottleneck
        with torch.no_grad():
            bottleneck.quantiles[:, 0, 1] = torch.linspace(-1, 1, bottleneck.channels)
    return codec


@pytest.fixture(scope="module")
def library(codec):
    """CompressAI's network alone, with the codec's weights."""
    network = build_network("tiny").eval()
    network.load_state_dict(codec.network.state_dict())
    return network


def test_frames_and_bits_are_those_of_the_librarys_own_forward(codec, library, scene):
    clip = scene(3, 128, 256)
    with torch.inference_mode():
        ours = codec(clip[None], LMBDA)
        theirs = library([*clip[:, None]])
    frames = torch.cat(theirs["x_hat"]).clamp(0, 1)
    torch.testing.assert_close(ours.x_hat[0], frames)
    bits = [
        sum(
            -mass.log2().sum()
            for latents in frame.values()
            for mass in latents.values()
        )
        for frame in theirs["likelihoods"]
    ]
    torch.testing.assert_close(ours.bits[0], torch.stack(bits), rtol=1e-5, atol=0.1)
    assert all(part.sum() > 100 for part in ours.parts.values())


def test_the_prediction_is_the_librarys_in_float64_too(library, scene):
    reference = scene(1, 48, 64)
    motion = torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    theirs = library.forward_prediction(reference, motion)
    torch.testing.assert_close(predict(library, reference, motion), theirs)
    exact = predict(library, reference.double(), motion.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact.float(), theirs)
    still = torch.tensor([0.0, 0.0, -1 + 1 / 6])[None, :, None, None]
    same = predict(library, reference, still.expand_as(reference))
    torch.testing.assert_close(same, reference)


def test_real_bytes_cost_what_was_estimated(lively_module, scene):
    codec = lively_module("ScaleSpaceFlow").codec.eval()
    for part in PARTS:
        # Deviations as large as random weights make latents.
        hyperprior = getattr(codec.network, f"{part}_hyperprior")
        hyperprior.hyper_decoder_scale.deconv3.bias.data += 5
    packets = list(codec.compress(scene(3, 128, 256), 0.01, reconstruct=True))
    real = 8 * sum(len(packet.payload) for packet in packets)
    estimated = sum(packet.estimated_bits for packet in packets)
    assert real == pytest.approx(estimated, rel=0.02)


def test_hyper_latents_that_lie_far_out_are_pulled_back(codec):
    prior = Bottleneck(codec.network.img_hyperprior.entropy_bottleneck)
    z = torch.full((1, prior.channels, 1, 1), 90.0, requires_grad=True)
    prior.bits(z).sum().backward()
    assert (z.grad > 0.1).all()


def test_after_a_loss_the_following_frames_move_what_was_shown_last(codec, scene):
    packets = list(codec.compress(scene(3, 64, 64), 0.01))
    frames = list(codec.decompress([packets[0], None, packets[2]], 64, 64))
    assert torch.equal(frames[0], frames[1])
    # As if the lost frame had never been between the two.
    again = list(codec.decompress([packets[0], packets[2]], 64, 64))
    assert torch.equal(frames[2], again[1])


# Training


def test_quantiles_learn_by_their_own_loss_and_faster(lively_module):
    module = lively_module("ScaleSpaceFlow").train()
    module.start_stage(Stage("one", 1, 2, lr=1e-4), 0, 1, 0)
    rest, quantiles = module.weight_groups()
    assert [p.shape[-2:] for p in quantiles["params"]] == [(1, 3)] * 3
    assert quantiles["lr"] == pytest.approx(1e-3)
    draw = module.draw(torch.rand(1, 2, 3, 32, 32), torch.arange(1), training=True)
    out = module.codec(draw.clip, draw.rate, **draw.conditions)
    out.terms["quantiles"].backward(retain_graph=True)
    assert all(p.grad is None for p in rest["params"])
    gradients = [p.grad.clone() for p in quantiles["params"]]
    assert all(gradient.any() for gradient in gradients)
    terms = module.terms(draw, out)
    (terms["rate"] + terms["distortion"]).backward()
    for parameter, gradient in zip(quantiles["params"], gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)
    # Validation's loss is of rate and distortion alone.
    assert "quantiles" not in module.codec.eval()(draw.clip, draw.rate).terms


def test_the_first_frame_learns_nothing_from_later_ones(lively_module):
    module = lively_module("ScaleSpaceFlow").train()
    out = module.codec(torch.rand(1, 3, 3, 32, 32), LMBDA, seeds=torch.arange(1))
    out.x_hat[:, 2].sum().backward()
    network = module.codec.network
    assert not network.img_decoder[6].weight.grad.any()
    assert network.motion_decoder[6].weight.grad.any()


# The weights that CompressAI published


def as_published(network, older):
    """A state dict as its file has it: with tables, and names of an older version."""
    network.update()
    state = dict(network.state_dict())
    if older:
        for new, old in (
            ("matrices", "matrix"),
            ("biases", "bias"),
            ("factors", "factor"),
        ):
            state = {k.replace(f".{new}.", f"._{old}"): v for k, v in state.items()}
    return state


@pytest.mark.parametrize("older", [False, True])
def test_the_zoos_weights_are_loaded(codec, lively_module, tmp_path, older):
    network = build_network("tiny")
    network.load_state_dict(codec.network.state_dict())
    path = tmp_path / "ssf2020-mse-1-c1ac1a47.pth.tar"
    torch.save(as_published(network, older), path)
    other = lively_module("ScaleSpaceFlow", seed=2).codec.eval()
    report = init_from(other, path)
    assert "released weights of ssf2020: 183 of 183 weights loaded" in report
    assert "missing" not in report and "tables (21)" in report
    assert other.fingerprint() == codec.fingerprint()
    bottleneck = other.network.res_hyperprior.entropy_bottleneck
    assert medians(bottleneck).flatten()[-1] == 1


def test_the_zoos_weights_need_the_papers_size(lively_module, tmp_path):
    path = tmp_path / "zoo.pth.tar"
    torch.save(build_network("small").state_dict(), path)
    codec = lively_module("ScaleSpaceFlow").codec
    with pytest.raises(ValueError, match=r"ssf2020, and .* not fit .* the size paper"):
        init_from(codec, path)


@pytest.fixture
def zoo_file(codec, tmp_path, monkeypatch):
    """The codec's weights as a published file, of a zoo whose models are tiny."""
    monkeypatch.setattr(released, "SIZE", "tiny")
    monkeypatch.setattr(sys.modules[ScaleSpaceFlowCodec.__module__], "SIZE", "tiny")
    network = build_network("tiny")
    network.load_state_dict(codec.network.state_dict())
    path = tmp_path / "ssf2020-mse-4-577c1eda.pth.tar"
    torch.save(as_published(network, older=True), path)
    return path


def test_a_file_of_the_zoo_is_a_checkpoint_that_codes(zoo_file, codec, library, scene):
    loaded = load_codec(zoo_file)
    knob = loaded.rate_knob
    assert (knob.name, knob.low, knob.high, knob.points) == ("quality", 4, 4, (4,))
    assert loaded.trained_with == {"released": "ssf2020"}
    # Measured on the meta device, too: the architecture builds such a network.
    assert type(loaded)(**loaded.architecture).state_dict().keys() == (
        codec.state_dict().keys()
    )
    clip = scene(3, 128, 256)
    packets = list(loaded.compress(clip, 4))
    frames = torch.stack(list(loaded.decompress(packets, 128, 256)))
    with torch.inference_mode():
        theirs = library([*clip[:, None]])
    expected = torch.cat(theirs["x_hat"]).clamp(0, 1)
    torch.testing.assert_close(frames, expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="this model has one rate, quality 4"):
        next(loaded.compress(clip, 0.01))


def test_files_of_the_zoo_differ_in_their_rate_alone_so_they_are_one_curve(zoo_file):
    first = describe(load_codec(zoo_file))
    other = zoo_file.rename(zoo_file.with_name("ssf2020-mse-7-4d867411.pth.tar"))
    assert first == describe(load_codec(other))
    assert first["rate_unit"] == "quality"


@pytest.mark.parametrize("name", ["mine.pth.tar", "ssf2020-mse-0-577c1eda.pth.tar"])
def test_a_name_that_says_no_quality_is_refused(zoo_file, name):
    path = zoo_file.rename(zoo_file.with_name(name))
    with pytest.raises(ValueError, match=rf"{name}: .*call it as it is published"):
        load_codec(path)


def test_a_checkpoint_of_the_zoo_has_the_papers_size(zoo_file):
    torch.save(build_network("small").state_dict(), zoo_file)
    with pytest.raises(ValueError, match=r"eda\.pth\.tar: .*must have the size paper"):
        load_codec(zoo_file)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"size": "huge"}, "'huge' is unknown: choose"), ({"lmbda": 0.0}, "lmbda is 0")],
)
def test_arguments_that_make_no_codec_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScaleSpaceFlowCodec(**{"size": "tiny", **arguments})


# The library


def test_the_papers_size_is_the_librarys():
    from compressai.models.video import ScaleSpaceFlow

    with torch.device("meta"):
        ours, theirs = build_network("paper"), ScaleSpaceFlow()
    shapes = [{k: v.shape for k, v in n.state_dict().items()} for n in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert {p.device.type for p in ours.parameters()} == {"meta"}


LATE = """
import sys
from lightning_modules.scale_space_flow.codec import ScaleSpaceFlowCodec
assert "compressai" not in sys.modules, "too early"
ScaleSpaceFlowCodec(size="tiny")
assert "compressai" in sys.modules
"""


def test_the_library_is_imported_late_and_without_a_word():
    run = [sys.executable, "-c", LATE]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
