"""The options that encode and decode have for VideoVAE alone."""

import pytest

from datamodules.writing import create_video
from experiments import decode, encode


@pytest.fixture(scope="module")
def files(lively_module, save_checkpoint, scene, tmp_path_factory):
    """A checkpoint, a video of eleven frames and a checkpoint of another codec."""
    folder = tmp_path_factory.mktemp("video_vae")
    vae = {"backbone": "lean_vae", "frames_per_unit": 5, "lpips": "random"}
    save_checkpoint(lively_module("VideoVAE", **vae), folder / "vae.ckpt")
    save_checkpoint(lively_module("UI2C"), folder / "ui2c.ckpt")
    with create_video(folder / "in.y4m", 40, 32, 25) as append:
        for frame in scene(11, 32, 40):
            append(frame)
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
