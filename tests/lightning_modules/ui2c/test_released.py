"""DCVC-RT's published files: all of their names, both networks, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.decode import main as decode
from experiments.encode import main as encode
from experiments.fit.weights import init_from
from lightning_modules import load_codec
from lightning_modules.ui2c.codec import UI2CCodec
from lightning_modules.ui2c.intra import IntraNetwork
from lightning_modules.ui2c.network import SIZES, UI2CNetwork
from lightning_modules.ui2c.released import IMAGE, VIDEO

BOTH = (VIDEO, IMAGE)
CLIP = Path(__file__).parents[2] / "written_before/clips/clip.y4m"


def block(name, inputs, channels, adaptor=False):
    """The tensors of a block of theirs, by name and shape."""
    shapes = {
        "dc.0": (channels, channels, 1, 1),
        "dc.2": (channels, 1, 3, 3),
        "dc.3": (channels, channels, 1, 1),
        "ffn.0": (4 * channels, channels, 1, 1),
        "ffn.2": (channels, 2 * channels, 1, 1),
    }
    if adaptor or inputs != channels:
        shapes["adaptor"] = (channels, inputs, 1, 1)
    return {f"{name}.{key}": shape for key, shape in shapes.items()}


def blocks(name, inputs, channels, count, first=0):
    named = {}
    for i in range(count):
        named |= block(f"{name}.{first + i}", inputs if i == 0 else channels, channels)
    return named


def hyper(encoder, decoder, y, z):
    named = block(f"{encoder}.0", y, z) | block(f"{decoder}.2", z, y)
    for i in (1, 2):
        named |= {f"{encoder}.{i}.down": (z, z, 2, 2)}
        named |= block(f"{encoder}.{i}.conv", z, z)
    for i in (0, 1):
        named |= {f"{decoder}.{i}.up.conv.0": (4 * z, z, 1, 1)}
        named |= block(f"{decoder}.{i}.conv", z, z)
    return named


def tables(rows, z, **gains):
    named = {name: (rows, width, 1, 1) for name, width in gains.items()}
    for layer in range(1, 5):
        for each in "hba"[: 3 if layer < 4 else 2]:
            named[f"bit_estimator_z.f{layer}.{each}"] = (rows, z, 1, 1)
    return named


def layers(shapes):
    return {
        f"{name}.{kind}": shape if kind == "weight" else shape[:1]
        for name, shape in shapes.items()
        for kind in ("weight", "bias")
    }


def video(d=256, recon=320, y=128, z=128):
    """Names and shapes of the published video model."""
    named = block("feature_adaptor_i", 192, d)
    named |= {"feature_adaptor_p": (d, d, 1, 1)}
    named |= blocks("feature_extractor.conv1", d, d, 2)
    named |= blocks("feature_extractor.conv2", d, d, 4)
    named |= {"encoder.conv1": (d, 192, 1, 1), "encoder.down": (y, d, 3, 3)}
    named |= blocks("encoder.conv2", 2 * d, d, 2) | block("encoder.conv3", d, d)
    named |= hyper("hyper_encoder.conv", "hyper_decoder.conv", y, z)
    named |= {"temporal_prior_encoder.down": (2 * y, d, 2, 2)}
    named |= block("temporal_prior_encoder.conv", 2 * y, 2 * y)
    named |= blocks("y_prior_fusion.conv", 3 * y, 3 * y, 3)
    named |= {"y_prior_fusion.conv.3": (3 * y, 3 * y, 1, 1)}
    named |= blocks("y_spatial_prior.conv", 4 * y, 3 * y, 2)
    named |= {"y_spatial_prior.conv.2": (2 * y, 3 * y, 1, 1)}
    named |= {"decoder.up.conv.0": (4 * d, y, 3, 3), "decoder.conv2": (d, d, 1, 1)}
    named |= blocks("decoder.conv1", 2 * d, d, 3)
    named |= blocks("recon_generation_net.conv", d, recon, 4)
    named |= {"recon_generation_net.head": (192, recon, 1, 1)}
    gains = tables(72, z, q_encoder=d, q_decoder=d, q_feature=d, q_recon=recon)
    return layers(named) | gains


def image(d=368, y=256, z=128):
    """Names and shapes of the published image model."""
    named = block("enc.enc_1", 192, d) | blocks("enc.enc_2", d, d, 6)
    named |= {"enc.enc_2.6": (y, d, 3, 3)} | hyper("hyper_enc", "hyper_dec", y, z)
    named |= blocks("y_prior_fusion", y, 2 * y, 3)
    named |= {"y_prior_fusion.3": (2 * y + 2, 2 * y, 1, 1)}
    named |= {"y_spatial_prior_reduction": (y, 2 * y + 2, 1, 1)}
    for i in (1, 2, 3):
        named |= block(f"y_spatial_prior_adaptor_{i}", 2 * y, 2 * y, adaptor=True)
    named |= blocks("y_spatial_prior", 2 * y, 2 * y, 3)
    named |= {"y_spatial_prior.3": (2 * y, 2 * y, 1, 1)}
    named |= {"dec.dec_1.0.up.conv.0": (4 * d, y, 1, 1)}
    named |= block("dec.dec_1.0.conv", d, d) | blocks("dec.dec_1", d, d, 12, first=1)
    named |= block("dec.dec_2", d, 192)
    return layers(named) | tables(64, z, q_scale_enc=d, q_scale_dec=d)


SHAPES = {VIDEO: video, IMAGE: image}


def weights(shapes, scale=0.02):
    torch.manual_seed(5)
    drawn = {name: torch.randn(shape) * scale for name, shape in shapes.items()}
    return {
        name: value + 1 if name.startswith("q_") else value
        for name, value in drawn.items()
    }


def network(part):
    if part is VIDEO:
        return UI2CNetwork(SIZES["paper"][1], 1)
    return IntraNetwork(368, 256, 128, 64)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Both files, of a DCVC-RT that is narrower."""
    paper = SIZES["paper"][1]
    narrow = replace(paper, trunk=32, recon=40, latent=16, hyper=16, image_latent=32)
    monkeypatch.setitem(SIZES["paper"], 1, narrow)
    shapes = {VIDEO: video(32, 40, 16, 16), IMAGE: image(46, 32, 16)}
    for part, own in shapes.items():
        torch.save({"state_dict": weights(own)}, tmp_path / part.file)
    return tmp_path


@pytest.mark.parametrize("part", BOTH, ids=lambda part: part.word)
def test_every_published_tensor_has_its_place_and_none_is_left(part):
    shapes = SHAPES[part]()
    assert len(shapes) == {VIDEO: 341, IMAGE: 407}[part]
    theirs = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    with torch.device("meta"):
        wanted = network(part).state_dict()
    given = part.ours(theirs)
    assert {k: v.shape for k, v in given.items()} == {
        k: v.shape for k, v in wanted.items()
    }
    assert (
        sum(v.numel() for v in given.values())
        == {
            VIDEO: 20_691_456,
            IMAGE: 45_651_314,
        }[part]
    )
    back = {name: part.theirs(name, wanted).shape for name in shapes}
    assert back == {name: torch.Size(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("part", BOTH, ids=lambda part: part.word)
def test_there_and_back_gives_the_same_numbers(part):
    small = {VIDEO: video(8, 8, 4, 4), IMAGE: image(8, 8, 4)}[part]
    theirs = weights(small)
    ours = part.ours(theirs)
    for name, value in theirs.items():
        assert torch.equal(part.theirs(name, ours), value)


@pytest.mark.parametrize("given", BOTH, ids=lambda part: part.word)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_either_file_gives_all_of_dcvc_rt(folder, given, prefix):
    path = folder / given.file
    own = torch.load(path)["state_dict"]
    torch.save({prefix + name: value for name, value in own.items()}, path)
    codec = load_codec(path)
    assert (codec.frames_per_unit, codec.input_offset) == (1, 0.0)
    assert codec.architecture["divided"] and not codec.lacks
    for part in BOTH:
        theirs = torch.load(folder / part.file)
        theirs = theirs.get("state_dict", theirs)
        state = getattr(codec, part.network).state_dict()
        for name, value in theirs.items():
            found = part.theirs(name.removeprefix("module."), state)
            assert torch.equal(found, value)


def test_renamed_files_are_found_by_each_other(folder):
    for part in BOTH:
        (folder / part.file).rename(folder / f"own_{part.word}.pth")
    assert load_codec(folder / "own_image.pth").architecture["divided"]


def test_the_video_file_alone_says_what_it_lacks(folder):
    (folder / IMAGE.file).unlink()
    with pytest.warns(UserWarning, match=r"without cvpr2025_image.*blank reference"):
        codec = load_codec(folder / VIDEO.file)
    assert codec.intra is None


def test_the_image_file_alone_codes_pictures_only(folder):
    (folder / VIDEO.file).unlink()
    codec = load_codec(folder / IMAGE.file)
    clip = torch.rand(2, 3, 32, 32)
    packets = list(codec.compress(clip, 21, intra_period=1))
    again = load_codec(folder / IMAGE.file)
    assert again.fingerprint() == codec.fingerprint()
    assert len(list(again.decompress(packets, 32, 32))) == 2
    message = r"without cvpr2025_video.*beside it.*intra_period to 1"
    for refused in (
        lambda: list(codec.compress(clip, 21)),
        lambda: codec(clip[None], torch.tensor([21])),
        lambda: codec.configure(start="blank"),
    ):
        with pytest.raises(ValueError, match=message):
            refused()


@pytest.mark.parametrize(
    "contents", ["same", [1, 2], {"state_dict": [1]}, {"q_basic": torch.ones(1)}, "cut"]
)
def test_what_lies_beside_must_be_the_other_model(folder, contents):
    beside = folder / IMAGE.file
    if contents == "same":
        beside.write_bytes((folder / VIDEO.file).read_bytes())
    elif contents == "cut":
        beside.write_bytes(beside.read_bytes()[:-100])
    else:
        torch.save(contents, beside)
    with pytest.raises(ValueError, match=rf"{IMAGE.file}, beside it: (is|was|these)"):
        load_codec(folder / VIDEO.file)


@pytest.mark.parametrize("change", ["missing", "more", "shape"])
def test_a_file_that_is_not_whole_is_refused(folder, change):
    path = folder / VIDEO.file
    own = torch.load(path)["state_dict"]
    if change == "missing":
        del own["q_recon"]
    else:
        own["more.bias" if change == "more" else "q_recon"] = torch.zeros(72, 3, 1, 1)
    torch.save(own, path)
    with pytest.raises(ValueError, match="1 of them do not fit"):
        load_codec(path)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("recon_head.head.weight", "DCVC-UF"),
        ("q_scale_y_enc", "DCVC-UF"),
        ("refine.0.down1.weight", "DCVC-FM"),
        ("mv_y_q_basic_enc", "DCVC-DC"),
        ("mv_y_q_basic", "DCVC-HEM"),
    ],
)
def test_others_of_the_family_are_named(tmp_path, name, family):
    path = tmp_path / "other.pth.tar"
    torch.save({f"module.{name}": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=f"weights of {family}, which is another"):
        load_codec(path)


def test_a_run_begins_with_both_files(folder):
    codec = UI2CCodec(frames_per_unit=1, divided=True, input_offset=0.0)
    report = init_from(codec, folder / VIDEO.file)
    assert "732 of 732 weights loaded" in report and IMAGE.file in report
    assert codec.fingerprint() == load_codec(folder / IMAGE.file).fingerprint()


@pytest.mark.parametrize(
    ("architecture", "part", "message"),
    [
        ({}, VIDEO, "--config ablations/ui2c/dcvc_rt"),
        ({"frames_per_unit": 1}, IMAGE, "--config ablations/ui2c/dcvc_rt"),
        ({"frames_per_unit": 1}, VIDEO, "--model.input_offset 0.0"),
        ({"frames_per_unit": 1, "size": "tiny", "input_offset": 0.0}, VIDEO, "paper"),
    ],
)
def test_a_run_of_another_network_is_refused(folder, architecture, part, message):
    codec = UI2CCodec(**{"size": "paper", **architecture})
    with pytest.raises(ValueError, match=message):
        init_from(codec, folder / part.file)


def test_image_models_of_earlier_versions_are_refused(tmp_path):
    codec = UI2CCodec("tiny", 1, divided=True)
    state = codec.state_dict()
    state["intra.reduction.weight"] = state["intra.reduction.weight"][:, 2:]
    with pytest.raises(ValueError, match="train divided models anew"):
        codec.load_state_dict(state)
    path = tmp_path / "old.ckpt"
    torch.save({"state_dict": {f"codec.{k}": v for k, v in state.items()}}, path)
    with pytest.raises(ValueError, match="train divided models anew"):
        init_from(codec, path)


def test_published_weights_code_through_the_commands(folder, capsys):
    stream, checkpoint = folder / "a.lvc", ["--checkpoint", str(folder / VIDEO.file)]
    arguments = [str(CLIP), str(stream), *checkpoint, "--rate", "21"]
    assert encode([*arguments, "--max_frames", "3"]) == 0
    assert decode([str(stream), *checkpoint, "--hash"]) == 0
    (folder / IMAGE.file).unlink()
    with pytest.warns(UserWarning, match="video model alone"):
        assert decode([str(stream), *checkpoint, "--hash"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: the stream was encoded with the weights")
