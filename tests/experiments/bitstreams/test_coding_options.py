"""The options that encode and decode have for one codec alone."""

from pathlib import Path

import pytest

from experiments import decode, encode


@pytest.fixture(scope="module")
def source(make_video):
    return str(make_video(11))


def test_commands_code_groups_side_by_side_with_the_same_bits(
    checkpoint, source, tmp_path, capsys
):
    shared = ["--checkpoint", str(checkpoint("video_vae")), "--device=cpu"]
    digests = {}
    for batch in ("1", "4"):
        out = str(tmp_path / f"{batch}.lvc")
        options = [*shared, "--rate=0.2", f"--gop_batch={batch}"]
        assert encode.main([source, out, *options]) == 0
        other = f"--gop_batch={5 - int(batch)}"
        assert decode.main([out, "--hash", *shared, other]) == 0
        digests[batch] = capsys.readouterr().out.split()[-1]
    assert (tmp_path / "1.lvc").read_bytes() == (tmp_path / "4.lvc").read_bytes()
    assert digests["1"] == digests["4"]
    apart = str(tmp_path / "apart.lvc")
    options = [*shared, "--rate=0.2", "--gop_overlap=off"]
    assert encode.main([source, apart, *options]) == 0
    assert decode.main([apart, "--hash", *shared]) == 0
    assert capsys.readouterr().out.split()[-1] != digests["1"]
    weighed = str(tmp_path / "weighed.lvc")
    options = [*shared, "--rate=0.2", "--gop_theta=0.3", "--verify"]
    assert encode.main([source, weighed, *options]) == 0


@pytest.mark.parametrize(
    ("codec", "option"), [("ui2c", "--refresh=4"), ("divided", "--start=blank")]
)
def test_what_an_encoder_was_told_decodes_without_being_told(
    checkpoint, source, tmp_path, codec, option
):
    shared = ["--checkpoint", str(checkpoint(codec)), "--device=cpu", "--rate=21"]
    plain, told = (str(tmp_path / f"{name}.lvc") for name in ("plain", "told"))
    assert encode.main([source, plain, *shared]) == 0
    # Another process decodes it and compares every frame.
    assert encode.main([source, told, *shared, option, "--verify"]) == 0
    assert Path(plain).read_bytes() != Path(told).read_bytes()


@pytest.mark.parametrize("option", ["--gop_batch=2", "--gop_overlap=on", "--tile=576"])
def test_commands_refuse_what_another_codec_does_not_have(
    checkpoint, source, tmp_path, capsys, option
):
    arguments = [source, str(tmp_path / "no.lvc"), "--rate=1", option]
    arguments += ["--checkpoint", str(checkpoint("ui2c")), "--device=cpu"]
    assert encode.main(arguments) == 2
    assert "UI2C cannot set" in capsys.readouterr().err
    assert not (tmp_path / "no.lvc").exists()


def test_decode_refuses_it_too(checkpoint, source, tmp_path, capsys):
    stream = str(tmp_path / "ui2c.lvc")
    shared = ["--checkpoint", str(checkpoint("ui2c")), "--device=cpu"]
    assert encode.main([source, stream, "--rate=1", "--max_frames=1", *shared]) == 0
    assert decode.main([stream, "--hash", "--gop_batch=2", *shared]) == 2
    assert "UI2C cannot set gop_batch" in capsys.readouterr().err
