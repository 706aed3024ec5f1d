"""Frames and bytes that somebody else's decoder gave, assessed as if they were ours."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datamodules.writing import create_video
from datamodules.yuv import dequantise, planes_to_rgb, quantise
from experiments.anchor.command import main
from experiments.compare.assemble import compare_results
from experiments.results.result import Result


@pytest.fixture
def run(tmp_path):
    """Run the command on clips, and return its result, or None where it refuses."""

    def measure(clips, *options, name="given", codec="decoded"):
        output = tmp_path / f"{name}.json"
        common = ["--codec", codec, "--sequences", *map(str, clips), "--lpips=none"]
        common += ["--threads=1", "--output", str(output)]
        return None if main([*common, *map(str, options)]) else Result.load(output)

    return measure


@pytest.fixture(scope="module")
def coded(anchor, tmp_path_factory):
    """A clip, and what x265 and its decoder made of it."""
    folder = tmp_path_factory.mktemp("coded")
    clip = anchor.write_y4m(folder / "clip.y4m", anchor.scene())
    cost, decoded = anchor.code(anchor.coder_of("x265", "ldp_medium"), folder, 30)
    own = anchor.write_y4m(folder / "decoded.y4m", [quantise(p) for p in decoded])
    frame_bytes = [int(bits) // 8 for bits in cost.frame_bits]
    return SimpleNamespace(
        folder=folder,
        clip=clip,
        decoded=own,
        planes=decoded,
        stream=folder / "stream.265",
        cost=cost,
        frame_bytes=frame_bytes,
    )


class ToyInception:
    """Means of a picture's quarters, by channel."""

    size = 12

    def __call__(self, pictures):
        quarters = torch.nn.functional.adaptive_avg_pool2d(pictures.float(), 2)
        return quarters.flatten(1)


def test_x265_through_its_own_decoded_frames_is_x265(run, coded, capsys, monkeypatch):
    monkeypatch.setattr("callbacks.metrics.distribution.Inception", ToyInception)
    monkeypatch.setattr("callbacks.metrics.distribution.check_inception", lambda: None)
    options = ("--preset=ldp_medium", "--qp=30", "--fid=frames")
    ours = run([coded.clip], *options, name="x265", codec="x265")
    theirs = run(
        [coded.clip],
        f"--decoded=30={coded.decoded}",
        f"--bytes=30={coded.stream}",
        "--fid=frames",
    )
    assert theirs.pools == ours.pools and ours.pools[0].metrics["fid"] > 0
    assert "note: given: not decoded by us: frames" in capsys.readouterr().out
    assert theirs.protocol == ours.protocol
    ((_, own),) = ours.all_points()
    ((sequence, point),) = theirs.all_points()
    assert sequence.key == ("coded0", "clip")
    assert point.metrics == own.metrics and len(point.metrics) > 10
    assert (point.bpp, point.nbytes, point.kbps) == (own.bpp, own.nbytes, own.kbps)
    assert len(set(point.per_frame.pop("bits"))) == 1
    own.per_frame.pop("bits")
    assert point.per_frame == own.per_frame and point.seconds == {}
    assert theirs.codec["decoded"] == "not decoded by us"
    assert (theirs.codec["kind"], theirs.codec["name"]) == ("decoded", "given")
    assert ours.codec["kind"] == "anchor" and "note" not in ours.codec
    notes = compare_results([ours, theirs], "x265").notes
    assert "given: not decoded by us: frames and bytes are as they were given." in notes


def forms(kind, coded, folder):
    """Return what a kind of decoded frames and of bytes is given as."""
    frames = [planes_to_rgb(dequantise(quantise(p)), "yuv420") for p in coded.planes]
    path, sizes = coded.decoded, folder / "sizes.txt"
    sizes.write_text("\n".join(map(str, coded.frame_bytes)))
    if kind == "png":
        path = folder / "png"
        with create_video(path, 64, 48, 25) as append:
            for frame in frames:
                append(frame)
        sizes = folder / "bits"
        sizes.mkdir()
        for number, size in enumerate(coded.frame_bytes, start=3):
            (sizes / f"{number}.bin").write_bytes(bytes(size))
    elif kind == "yuv":
        path = folder / "any_name.yuv"
        data = b"".join(p.tobytes() for f in coded.planes for p in quantise(f))
        path.write_bytes(data)
        sizes = folder / "sizes.json"
        sizes.write_text(json.dumps(coded.frame_bytes))
    elif kind == "number":
        sizes = sum(coded.frame_bytes)
    return path, sizes


@pytest.mark.parametrize("kind", ["y4m", "png", "yuv", "number"])
def test_frames_and_bytes_come_in_many_forms(run, coded, tmp_path, kind):
    path, sizes = forms(kind, coded, tmp_path)
    result = run([coded.clip], f"--decoded=1.5={path}", f"--bytes=1.5={sizes}")
    ((_, point),) = result.all_points()
    assert (point.rate, point.nbytes) == (1.5, sum(coded.frame_bytes))
    if kind == "number":
        assert point.per_frame["bits"] == [point.nbytes] * 8
    else:
        assert point.per_frame["bits"] == [8 * size for size in coded.frame_bytes]
    error = np.mean(
        [
            (quantise(planes)[0].astype(float) - source[0]) ** 2
            for planes, source in zip(coded.planes, codes_of(coded), strict=True)
        ]
    )
    assert abs(10 * np.log10(255**2 / error) - point.metrics["psnr_y"]) < 0.2


def codes_of(coded):
    data = coded.clip.read_bytes().split(b"FRAME\n")[1:]
    return [[np.frombuffer(d[: 48 * 64], np.uint8).reshape(48, 64)] for d in data]


@pytest.mark.parametrize("yuv_as", ["full709", "ffmpeg"])
def test_decoded_planes_become_rgb_as_the_sources_do(run, coded, yuv_as):
    given = [f"--decoded=1={coded.clip}", "--bytes=1=900"]
    result = run([coded.clip], *given, "--colour=rgb", f"--yuv_as={yuv_as}")
    ((_, point),) = result.all_points()
    assert point.metrics["psnr_rgb"] > 99
    assert result.protocol.yuv_as == yuv_as


@pytest.fixture
def pair(anchor, tmp_path):
    """Two clips, one called like the beginning of the other, and what was decoded."""
    for place, suffix in (("clips", ""), ("q1", "_64x48_25")):
        (tmp_path / place).mkdir()
        for name, frames in (("a", 8), ("a_b", 5)):
            codes = anchor.scene(frames=frames)
            path = tmp_path / place / f"{name}{suffix * (name == 'a_b')}.y4m"
            anchor.write_y4m(path, codes)
            path.with_suffix(".bin").write_bytes(bytes(100 * frames))
    return tmp_path


@pytest.mark.parametrize("how", ["folder", "pattern", "json"])
def test_several_sequences_are_found_by_their_names(run, pair, how):
    frames, sizes = pair / "q1", pair / "q1"
    if how == "pattern":
        for path in (pair / "q1").iterdir():
            path.rename(path.with_stem(path.stem.removesuffix("_64x48_25")))
        frames, sizes = frames / "{sequence}.y4m", sizes / "{sequence}.bin"
    elif how == "json":
        sizes = pair / "sizes.json"
        sizes.write_text(json.dumps({"a": 800, "clips/a_b": [100] * 5}))
    result = run([pair / "clips"], f"--decoded=1={frames}", f"--bytes=1={sizes}")
    found = {s.name: (s.frames, p.nbytes) for s, p in result.all_points()}
    assert found == {"a": (8, 800), "a_b": (5, 500)}


def test_a_name_of_a_sequence_is_no_variable(run, pair, monkeypatch):
    monkeypatch.setenv("DECODED", str(pair / "q1"))
    for path in pair.glob("*/a_b*"):
        path.rename(path.with_name(path.name.replace("a_b", "do$llar")))
    for path in (pair / "q1").iterdir():
        path.rename(path.with_stem(path.stem.removesuffix("_64x48_25")))
    frames, sizes = (f"${{DECODED}}/{{sequence}}{s}" for s in (".y4m", ".bin"))
    result = run([pair / "clips"], f"--decoded=1={frames}", f"--bytes=1={sizes}")
    assert [s.name for s in result.sequences] == ["a", "do$llar"]


def test_changed_bytes_do_not_pass_for_those_that_were_measured(
    run, coded, only_error, capsys
):
    options = [f"--decoded=1={coded.decoded}", "--bytes", "1=900"]
    assert run([coded.clip], *options)
    capsys.readouterr()
    assert run([coded.clip], *options[:2], "1=901") is None
    assert "900 bytes were given before, now 901: choose" in only_error()


@pytest.mark.parametrize(
    ("frames", "sizes", "message"),
    [
        (["1=F"], [], "--bytes lacks rate 1"),
        (["1=F", "2=F"], ["1=9"], "--bytes lacks rate 2"),
        (["1=F"], ["1=9", "2=9"], "--bytes has rate 2, of which --decoded has none"),
        (["1=F", "1.0=G"], ["1=9"], "--decoded names rate 1 twice: F and G"),
        (["1=F"], ["1=9", "1=8"], "--bytes names rate 1 twice: 9 and 8"),
        (["F"], ["1=9"], "--decoded 'F' must be RATE=..."),
        (["nan=G"], ["1=9"], "--decoded 'nan=G' must be RATE=..."),
        (["1="], ["1=9"], "--decoded '1=' must be RATE=..."),
        (["1=none.y4m"], ["1=9"], "there is no none.y4m for clip"),
        (["1=F"], ["1=none.bin"], "there is no none.bin for clip"),
        (["1=F"], ["1=0"], "--bytes 0 says no bytes at all"),
        (["1=F"], ["1=-5"], "--bytes -5: that is no number of bytes, which is whole"),
        (["1=F"], ["1=1.5"], "--bytes 1.5: that is no number of bytes"),
        (["1=short.y4m"], ["1=9"], "it would be 3 frames"),
        (["1=small.y4m"], ["1=9"], "is 32x48, not 64x48"),
        (["1=noise.mp4"], ["1=9"], "noise.mp4"),
        (["1=noise.yuv"], ["1=9"], "noise.yuv has 100 bytes"),
        (["1=empty"], ["1=9"], "empty must hold one video or folder of images"),
        (["1=F"], ["1=words.txt"], "'many' is no whole number of bytes"),
        (["1=F"], ["1=noise.json"], "noise.json cannot be read"),
        (["1=F"], ["1=half.json"], "has 1.5, which is no whole number of bytes"),
        (["1=F"], ["1=other.json"], "has no sequence clip, only other"),
        (["1=F"], ["1=three.txt"], "bytes are given of 3 frames, there are 8"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    run, anchor, coded, tmp_path, monkeypatch, only_error, frames, sizes, message
):
    monkeypatch.chdir(tmp_path)
    anchor.write_y4m(Path("short.y4m"), anchor.scene(frames=3))
    anchor.write_y4m(Path("small.y4m"), anchor.scene(width=32))
    Path("empty").mkdir()
    for name in ("noise.mp4", "noise.yuv", "noise.json"):
        Path(name).write_bytes(b"noise" * 20)
    Path("words.txt").write_text("1 2 many")
    Path("three.txt").write_text("1 2 3")
    Path("half.json").write_text("[1.5]")
    Path("other.json").write_text('{"other": 5}')
    frames = [text.replace("=F", f"={coded.decoded}") for text in frames]
    given = [f"--bytes={sizes[0]}"] if len(sizes) == 1 else []
    given = ["--bytes", *sizes] if len(sizes) > 1 else given
    assert run([coded.clip], "--decoded", *frames, *given) is None
    assert message.replace("F and", f"{coded.decoded} and") in only_error()
    assert not Path("given.parts").exists() or not list(Path("given.parts").iterdir())


def test_one_file_does_not_stand_for_two_sequences(run, pair, only_error):
    frames = f"--decoded=1={pair / 'q1'}"
    assert run([pair / "clips"], frames, "--bytes=1=900") is None
    assert "rate 1: 900 is given for a, a_b: name a folder" in only_error()


def test_a_file_may_be_both_frames_and_bytes(run, pair):
    frames = f"={pair / 'q1' / '{sequence}'}_64x48_25.y4m"
    (pair / "q1" / "a.y4m").rename(pair / "q1" / "a_64x48_25.y4m")
    result = run([pair / "clips"], f"--decoded=1{frames}", f"--bytes=1{frames}")
    assert len([*result.all_points()]) == 2


def test_a_decoder_that_gave_too_many_frames_is_refused(run, coded, only_error):
    options = [f"--decoded=1={coded.decoded}", "--bytes=1=900", "--max_frames=6"]
    assert run([coded.clip], *options) is None
    assert "it would be 8 frames" in only_error()
