"""The command encode with a target: it searches the rate whose file has that size."""

import math
import os
import re
from dataclasses import replace
from itertools import islice
from typing import ClassVar

import pytest
import torch

from datamodules.frames import open_video
from experiments import encode
from lightning_modules.bitstream import BitstreamReader
from lightning_modules.packets import Packet

pytestmark = pytest.mark.usefixtures("codec")


def run_search(source, target, *more):
    return encode.main([str(source), str(target), "--checkpoint=c.ckpt", *more])


@pytest.fixture
def rated(zip_codec, codec):
    """Has something to search: the higher the rate, the more padding."""

    class RatedCodec(zip_codec):
        passes_begun: ClassVar = []

        def compress(self, frames, rate, **options):
            self.passes_begun.append(rate)
            for packet in super().compress(frames, rate, **options):
                padding = bytes(round(500 * math.exp(rate / 20)))
                yield replace(packet, payload=packet.payload + padding)

    codec["kind"] = RatedCodec
    return RatedCodec


@pytest.mark.parametrize(
    ("unit", "target", "scale"), [("bpp", 600, 8 / 175), ("kbps", 99, 25 / 5 / 125)]
)
def test_a_target_is_met_with_all_bytes_counted(
    commands, source, out, rated, frames, capsys, unit, target, scale
):
    path = out / "v.lvc"
    assert run_search(source, path, f"--target_{unit}={target}") == 0
    printed = capsys.readouterr()
    assert path.stat().st_size * scale == pytest.approx(target, rel=0.01)
    with path.open("rb") as file:
        rate = BitstreamReader(file).header.rate
    assert f"{path.stat().st_size} bytes" in printed.out
    assert f", qp {rate:.6g}, " in printed.out
    *others, last = printed.err.splitlines()
    assert len(others) + 1 == len(rated.passes_begun) <= 8
    assert rate == rated.passes_begun[-1]
    deviation = path.stat().st_size * scale / target - 1
    assert last.startswith(f"qp {rate:.6g}: {path.stat().st_size} bytes, ")
    assert last.endswith(f" {unit}, {deviation:+.2%}")
    assert [p.name for p in out.iterdir()] == ["v.lvc"]
    assert commands.decode(path, out / "frames") == 0
    assert torch.equal(commands.read(out / "frames"), frames)


def test_a_target_that_is_not_met_gives_the_closest_file_and_a_warning(
    source, out, rated, monkeypatch, capsys
):
    sizes = iter([2000, 900, 1500, 1100, 1300, 1050, 1400, 2000])
    kept = {}

    def compress(self, frames, rate, **options):
        (size,) = islice(sizes, 1)
        kept[size] = rate
        shown = torch.stack(list(frames))
        yield Packet(bytes(size), len(shown), 0, shown)

    monkeypatch.setattr(rated, "compress", compress)
    assert run_search(source, out / "v.lvc", "--target_bpp=55.1") == 0
    *_, warning = capsys.readouterr().err.splitlines()
    assert "warning: 8 encodes came no closer than " in warning
    assert "55.1 bpp" in warning
    with (out / "v.lvc").open("rb") as file:
        reader = BitstreamReader(file)
        (unit,) = reader
    assert len(unit.payload) == 1100
    assert reader.header.rate == kept[1100]
    assert [p.name for p in out.iterdir()] == ["v.lvc"]


@pytest.mark.parametrize("target", ["1", "1e6"])
def test_a_target_out_of_reach_is_an_error_and_leaves_what_was_there(
    source, stream, out, rated, target, capsys
):
    before = stream.read_bytes()
    capsys.readouterr()
    assert run_search(source, stream, f"--target_kbps={target}") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    for part in ("error: a target of", "out of the codec's reach", "qp 0", "qp 63"):
        assert part in line
    assert stream.read_bytes() == before
    assert sorted(p.name for p in stream.parent.iterdir()) == ["frames", "v.lvc"]


def test_a_searched_file_is_verified_like_any_other(
    source, out, rated, in_process, monkeypatch, capsys
):
    assert run_search(source, out / "v.lvc", "--target_bpp=600", "--verify") == 0
    assert re.search(
        r"qp \d+\.\d+, PSNR 99\.90 dB, .*verified", capsys.readouterr().out
    )

    def decompress(self, packets, height, width, *, scales):
        for packet in packets:
            yield from torch.zeros(packet.frames, 3, height, width)

    monkeypatch.setattr(rated, "decompress", decompress)
    assert run_search(source, out / "no.lvc", "--target_bpp=600", "--verify") == 2
    assert "decoded frames differ" in capsys.readouterr().err
    assert [p.name for p in out.iterdir()] == ["v.lvc"]


def test_an_interrupted_search_leaves_nothing(source, out, codec, rated):
    codec["interrupt"] = True
    assert run_search(source, out / "v.lvc", "--target_bpp=600") == 130
    assert list(out.iterdir()) == []


def test_a_source_that_can_be_read_once_has_no_target(
    only_error, source, out, rated, monkeypatch
):
    monkeypatch.setattr("datamodules.frames.open_video", lambda *_, **__: open_frames)
    open_frames = open_video(source)
    os.mkfifo(out / "pipe.y4m")
    assert run_search(out / "pipe.y4m", out / "v.lvc", "--target_bpp=600") == 2
    assert "only once" in only_error()
    assert rated.passes_begun == []


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--rate=9", "--target_bpp=1"],
        ["--rate=9", "--target_kbps=1"],
        ["--target_bpp=1", "--target_kbps=1"],
    ],
)
def test_exactly_one_of_rate_and_targets_is_given(source, out, options, capsys):
    with pytest.raises(SystemExit) as caught:
        run_search(source, out / "v.lvc", *options)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    if options:
        assert "not allowed with argument --" in line
    else:
        assert "one of the arguments --rate --target_bpp --target_kbps is re" in line


@pytest.mark.parametrize("target", ["0", "-1", "nan", "inf"])
def test_an_impossible_target_is_an_error(only_error, source, out, rated, target):
    assert run_search(source, out / "v.lvc", f"--target_bpp={target}") == 2
    assert "not possible" in only_error()
    assert rated.passes_begun == []
    assert list(out.iterdir()) == []
