"""Published weights of DHVC 1.0: which file is one, its lambda, what becomes of it."""

from pathlib import Path

import pytest
import torch

from lightning_modules import load_codec
from lightning_modules.dhvc.codec import DHVCCodec
from lightning_modules.dhvc.design import DHVC_1
from lightning_modules.dhvc.released import BEHIND, TELLING, released_lmbda

SCALES = ((512, 1, 4.0, 1), (512, 3, 3.0, 2), (384, 5, 2.0, 1), (256, 7, 1.75, 1))
"""Channels of S and D, kernel, ratio and number of latents, coarsest first."""
ENCODER = ((192, 7, 6), (384, 7, 2), (512, 5, 2), (512, 3, 4), (512, 1, 4))
"""Channels, kernel and blocks by level, finest first."""
Z = (32, 32, 96, 8)


def conv(key, out, into, kernel):
    return {f"{key}.weight": (out, into, kernel, kernel), f"{key}.bias": (out,)}


def block(key, width, kernel, ratio=2.0):
    hidden = int(ratio * width)
    return {
        f"{key}.gamma": (1, width, 1, 1),
        **conv(f"{key}.conv_dw", width, 1, kernel),
        f"{key}.norm.weight": (width,),
        f"{key}.norm.bias": (width,),
        f"{key}.mlp.fc1.weight": (hidden, width),
        f"{key}.mlp.fc1.bias": (hidden,),
        f"{key}.mlp.fc2.weight": (width, hidden),
        f"{key}.mlp.fc2.bias": (width,),
    }


def predictor(key, width, kernel):
    shapes = block(f"{key}.end_fuse", width, kernel)
    for n in (1, 2):
        shapes |= conv(f"{key}.enc{n}.0", 128, 2 * width, 3)
        for i in (1, 2, 3):
            shapes |= block(f"{key}.enc{n}.{i}", 128, kernel)
        shapes |= block(f"{key}.dec{n}.0", 128, kernel)
        for i in (1, 2):
            shapes |= block(f"{key}.dec{n}.{i}.0", 256, kernel)
            shapes |= conv(f"{key}.dec{n}.{i}.1", 128, 256, 3)
        shapes |= conv(f"{key}.dec{n}.3", width, 256, 3)
    return shapes


def latent(key, width, observed, z, kernel, ratio):
    shapes = predictor(f"{key}.tcp", width, kernel)
    for name in ("resnet_front", "resnet_end", "resnet_dec"):
        shapes |= block(f"{key}.{name}", width, kernel, ratio)
    for name, channels in enumerate((observed, width, width)):
        shapes |= block(f"{key}.posterior{name}", channels, kernel)
    gaussian = f"{key}.discrete_gaussian"
    return {
        **shapes,
        **conv(f"{key}.post_merge", width, observed + width, 1),
        **conv(f"{key}.dec_merge", width, 3 * width, 1),
        **conv(f"{key}.posterior", z, width, 3),
        **conv(f"{key}.z_proj", width, z, 1),
        **conv(f"{key}.prior", 2 * z, width, 1),
        **{f"{gaussian}.{n}": (0,) for n in ("_offset", "_quantized_cdf")},
        f"{gaussian}._cdf_length": (0,),
        f"{gaussian}.likelihood_lower_bound.bound": (1,),
        f"{gaussian}.lower_bound_scale.bound": (1,),
        f"{key}.up_bound.bound": (1,),
    }


def encoder():
    shapes = conv("encoder.enc_blocks.0", 192, 3, 4)
    number = 0
    for level, (width, kernel, count) in enumerate(ENCODER):
        for _ in range(count):
            number += 1
            shapes |= block(f"encoder.enc_blocks.{number}", width, kernel)
        if level + 1 < len(ENCODER):
            number += 1
            key = f"encoder.enc_blocks.{number}"
            shapes |= block(f"{key}.0", width, 7)
            shapes |= conv(f"{key}.1", ENCODER[level + 1][0], width, 3)
    return shapes


def both_paths():
    shapes, number, coarser, latents = {}, 0, None, []
    for level, (width, kernel, ratio, count) in enumerate(SCALES):
        for path in ("dec", "fea"):
            n, key = number, f"{path}_blocks"
            if coarser:
                shapes |= conv(f"{key}.{n}.0", 4 * width, coarser, 1)
                shapes |= block(f"{key}.{n + 1}", width, kernel, ratio)
                n += 2
            observed = ENCODER[-1 - level][0]
            for _ in range(count):
                if path == "dec":
                    at = f"{key}.{n}"
                    shapes |= latent(at, width, observed, Z[level], kernel, ratio)
                    latents.append(width)
                n += 1
            shapes |= block(f"{key}.{n}", width, kernel, ratio)
        number, coarser = n + 1, width
    for key in ("dec_blocks", "fea_blocks"):
        shapes |= conv(f"{key}.{number}.0", 4 * 128, coarser, 1)
        for i in range(8):
            shapes |= block(f"{key}.{number + 1 + i}", 128, 7, 1.5)
        shapes |= conv(f"{key}.{number + 9}.0", 3 * 16, 128, 1)
    shapes |= {f"bias_list.{i}": (1, n, 1, 1) for i, n in enumerate(latents)}
    return shapes


SHAPES = {"bias": (1, 512, 1, 1), **encoder(), **both_paths()}
"""The public class's state dict, by its names."""


def published(**changed):
    """Return it, without memory of its own: numbers that no other tensor has."""
    shapes = {**SHAPES, **changed}
    values = {key: torch.tensor(float(i)) for i, key in enumerate(shapes)}
    return {key: values[key].expand(shape) for key, shape in shapes.items()}


@pytest.fixture(scope="module")
def blank():
    """The preset, with no memory."""
    with torch.device("meta"):
        return DHVCCodec("paper", (512, 512), **vars(DHVC_1))


def test_the_public_class_is_the_preset_but_for_what_nothing_refers_to(blank):
    weights = published()
    released = blank.find_released(weights)
    wanted = blank.state_dict()
    assert {key: value.shape for key, value in released.weights.items()} == {
        key: value.shape for key, value in wanted.items()
    }
    # Nothing is there twice.
    assert len({float(v.flatten()[0]) for v in released.weights.values()}) == len(
        wanted
    )
    assert released.left_out == {"tables of sigma": 30, BEHIND: 85}
    tables = ("bound", "_offset", "_quantized_cdf", "_cdf_length")
    whole = sum(v.numel() for k, v in weights.items() if not k.endswith(tables))
    kept = sum(value.numel() for value in released.weights.values())
    assert (whole, whole - kept) == (117_924_664, 831_472)


def test_blocks_of_equal_shapes_take_their_places(blank):
    weights = published()
    found = blank.find_released(weights).weights
    for theirs, ours in (
        ("bias", "spatial_constant"),
        ("bias_list.2", "scale2.1.temporal_constant"),
        ("encoder.enc_blocks.10.1.weight", "encoder.down.1.weight"),
        ("encoder.enc_blocks.11.mlp.fc1.bias", "encoder.levels.2.0.expand.bias"),
        ("dec_blocks.3.norm.weight", "scale2.0.decoded.norm.weight"),
        ("fea_blocks.3.norm.weight", "scale2.0.enter_spatial.0.norm.weight"),
        ("dec_blocks.4.resnet_front.gamma", "scale2.0.spatial.gain"),
        ("dec_blocks.4.resnet_end.gamma", "scale2.0.end.0.gain"),
        ("dec_blocks.5.resnet_dec.gamma", "scale2.1.decode.gain"),
        ("dec_blocks.5.posterior1.gamma", "scale2.1.from_spatial.gain"),
        ("dec_blocks.5.posterior2.gamma", "scale2.1.posterior.between.0.gain"),
        ("dec_blocks.6.gamma", "scale2.1.leave_decoded.0.gain"),
        ("fea_blocks.6.gamma", "scale2.1.leave_spatial.0.gain"),
        ("dec_blocks.0.tcp.enc2.3.gamma", "scale1.0.predictor.fusion.down.2.gain"),
        ("dec_blocks.0.tcp.dec1.2.0.gamma", "scale1.0.predictor.temporal.up.1.gain"),
        ("dec_blocks.24.0.bias", "tail.out.bias"),
    ):
        number = float(weights[theirs].flatten()[0])
        assert float(found[f"network.{ours}"].flatten()[0]) == number, theirs


def test_a_files_weights_become_the_codec_of_its_one_lambda():
    weights = {f"module.{key}": value for key, value in published().items()}
    codec = DHVCCodec.from_released(weights, Path("checkpoint_best_loss_512.pth.tar"))
    knob = codec.rate_knob
    assert (knob.name, knob.low, knob.high, knob.points) == ("lmbda", 512, 512, (512,))
    assert codec.trained_with == {"released": "DHVC 1.0"}
    last = codec.network.tail.out.weight
    assert bool((last == float(weights["module.dec_blocks.24.0.weight"][0, 0])).all())


@pytest.mark.parametrize(
    ("path", "lmbda"),
    [
        ("dhvc1-2048.pth.tar", 2048),
        ("256/checkpoint_best_loss.pth.tar", 256),
        ("256/dhvc_1024.pth.tar", 1024),
        ("pretrained/3/checkpoint_best_loss.pth.tar", None),
        ("512_or_1024.pth.tar", None),
        ("lambda5120.pth.tar", None),
    ],
)
def test_the_lambda_is_that_of_the_name(path, lmbda):
    if lmbda:
        assert released_lmbda(Path(path)) == lmbda
        return
    with pytest.raises(ValueError, match=r"DHVC 1\.0.*256, 512, 1024, 2048 into the"):
        released_lmbda(Path(path))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"dec_blocks.24.0.bias": (12,)}, r"and 1 of them .*tail\.out\.bias"),
        ({"dec_blocks.30.weight": (1,)}, r"and 1 of them .*dec_blocks\.30\.weight"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(blank, changed, named):
    with pytest.raises(ValueError, match=rf"{named}.*base_dhvc_1\.yaml") as told:
        blank.find_released(published(**changed))
    assert "\n" not in str(told.value) and len(str(told.value)) < 400


def test_a_file_that_was_cut_says_what_it_lacks(blank):
    weights = published()
    del weights["bias_list.4"]
    with pytest.raises(ValueError, match=r"1 of them .*scale4\.0\.temporal_constant"):
        blank.find_released(weights)


def test_another_dhvc_refuses_them_and_names_the_one_that_takes_them():
    with torch.device("meta"):
        newest = DHVCCodec()
    with pytest.raises(ValueError, match=r"of them do not fit.*base_dhvc_1\.yaml"):
        newest.find_released(published())


def test_a_damaged_file_is_refused_before_its_name(tmp_path):
    path = tmp_path / "checkpoint_best_loss.pth.tar"
    torch.save({"state_dict": {TELLING: torch.ones(2)}}, path)
    with pytest.raises(ValueError, match=r"best_loss\.pth\.tar: .*do not fit"):
        load_codec(path)


# That the weights mean the same here.


@pytest.fixture(scope="module")
def tiny(dhvc):
    return dhvc.lively(**{**vars(DHVC_1), "lmbda_range": (512.0, 512.0)})


def test_s_is_the_first_part_and_d_begins_as_zeros(tiny, dhvc):
    block = tiny.network.scale1[0]
    given, made = {}, {}

    def keep(layer, arguments, output):
        given[layer], made[layer] = arguments[0], output

    layers = (block.spatial, block.posterior, block.end, block.merge)
    hooks = [layer.register_forward_hook(keep) for layer in layers]
    tiny(dhvc.scene(1)[None], torch.tensor([512.0]))
    for hook in hooks:
        hook.remove()
    s, d, _ = given[block.merge].chunk(3, dim=1)
    assert torch.equal(s, made[block.end]) and not d.any()
    known = block.from_spatial(made[block.spatial], None)
    assert torch.equal(given[block.posterior][:, : known.shape[1]], known)


def test_pixels_are_0_to_1_and_sigma_ends_at_20(tiny):
    frame = torch.tensor([0.0, 0.25, 1.0]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    assert torch.equal(tiny.coder._to_network(frame), frame)
    levels = tiny.network.scale1[0].levels
    assert (levels.low, levels.high, levels.count) == (0.11, 20.0, 64)
