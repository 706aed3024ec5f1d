"""Checksums of pixels, and what is said of a machine unlike the encoder's."""

from dataclasses import replace

import pytest
import torch

from experiments.bitstreams import encoding
from experiments.bitstreams.files import open_stream
from experiments.bitstreams.pixels import PixelChecks, checksum_of
from lightning_modules import numerics
from lightning_modules.numerics import current
from lightning_modules.packets import Packet

pytestmark = pytest.mark.usefixtures("codec")
FORGED = "frame {} is not, bit by bit"


@pytest.fixture
def forge(stream, rewritten, tmp_path):
    """Return a copy of the stream in which units claim other pixels."""

    def make(*units):
        number = -1

        def change(unit):
            nonlocal number
            number += 1
            return replace(unit, pixels=unit.pixels ^ (number in units))

        return rewritten(stream, tmp_path / "forged.lvc", change)

    return make


def test_every_unit_that_completes_frames_has_a_checksum_of_them(stream, frames):
    with open_stream(stream) as reader:
        units = list(reader)
    expected = [checksum_of(part) for part in frames.split(2)]
    assert [unit.pixels for unit in units] == expected
    # The same bytes, but others in number or shape.
    shapes = [frames[:2], frames[:2].flatten(0, 1), frames[:2].transpose(2, 3)]
    assert len({checksum_of(part) for part in shapes}) == 3


@pytest.mark.parametrize(("units", "frame"), [((0, 1, 2), 0), ((1,), 2), ((2,), 4)])
def test_forged_pixels_are_said_once(forge, commands, out, capsys, units, frame):
    path = forge(*units)
    capsys.readouterr()
    assert commands.decode(path, out / "frames") == 0
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("warning: ") and FORGED.format(frame) in line
    assert "checked" not in printed.out
    assert len(commands.read(out / "frames")) == 5


@pytest.mark.parametrize("more", [[], ["--partial"]])
def test_strictly_forged_pixels_are_an_error_and_leave_nothing(
    forge, commands, out, only_error, capsys, more
):
    path = forge(1)
    capsys.readouterr()
    assert commands.decode(path, out / "frames", "--strict", *more) == 2
    assert FORGED.format(2) in only_error()
    assert list(out.iterdir()) == []


def test_frames_before_damage_are_compared_too(stream, commands, out, capsys):
    stream.write_bytes(stream.read_bytes()[:-20])
    capsys.readouterr()
    assert commands.decode(stream, out / "frames", "--partial", "--strict") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "4 frames recovered" in line


def test_a_stream_may_do_without(source, commands, out, only_error, capsys):
    path = out / "v.lvc"
    checked, plain = (
        commands.encode(source, path, *more) or path.stat().st_size
        for more in ([], ["--unchecked"])
    )
    assert checked - plain == 2 * 3
    capsys.readouterr()
    assert commands.decode(path, out / "frames") == 0
    printed = capsys.readouterr()
    assert not printed.err and "checked" not in printed.out
    assert commands.decode(path, out / "again", "--strict") == 2
    assert "has no checksums of its pixels" in only_error()


def test_an_unchecked_encoder_needs_no_reconstruction(
    codec, source, commands, out, monkeypatch
):
    asked = []

    class Watched(codec["kind"]):
        def _compress(self, frames, schedule, reconstruct):
            asked.append(reconstruct)
            yield from super()._compress(frames, schedule, reconstruct)

    codec["kind"] = Watched
    for more in ([], ["--unchecked"]):
        assert commands.encode(source, out / "v.lvc", *more) == 0
    assert asked == [True, False]


def test_a_codec_that_gives_other_frames_than_units_claim_is_told_of():
    frame = torch.zeros(3, 2, 2)
    told = []
    checks = PixelChecks(told.append)
    unit = Packet(b"", 1, 0, pixels=checksum_of([frame]))
    list(checks.note([unit]))
    checks.take(frame)
    assert checks.compared == 1 and not told
    checks.take(frame)
    assert told == [1] and checks.differs


def test_strict_is_for_all_scales(stream, commands, out, only_error, capsys):
    capsys.readouterr()
    assert commands.decode(stream, out / "v.y4m", "--strict", "--scales=1") == 2
    assert "leave out --scales" in only_error()


UNLIKE = {
    "torch": ({"torch": "1.2.3"}, "with torch 1.2.3, this is"),
    "isa": ({"isa": "native-avx512"}, "instruction set native-avx512, this is avx2"),
    "maker": ({"maker": "other"}, "on a processor of other, this is one of"),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_what_cannot_be_recreated_is_said_before(
    stream, rewritten, commands, out, capsys, name
):
    changed, words = UNLIKE[name]
    with open_stream(stream) as reader:
        header = reader.header
    for exact in (False, True):
        own = replace(header.numerics, **changed)
        path = rewritten(stream, out.parent / "v.lvc", numerics=own, exact=exact)
        capsys.readouterr()
        assert commands.decode(path, out / "v.y4m") == 0
        printed = capsys.readouterr()
        assert printed.out.endswith(", checked\n")
        if exact:
            assert not printed.err
            continue
        (line,) = printed.err.splitlines()
        assert line.startswith("warning: ") and words in line
        assert "--dtype float64" in line


def test_another_device_is_said_before(stream, rewritten, commands, out, capsys):
    path = rewritten(stream, out.parent / "v.lvc", device="xpu")
    capsys.readouterr()
    assert commands.decode(path, out / "v.y4m", "--device=cpu") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "encoded on xpu, this is cpu" in line
    path = rewritten(path, out.parent / "exact.lvc", exact=True)
    capsys.readouterr()
    assert commands.decode(path, out / "v.y4m", "--device=cpu") == 0
    assert not capsys.readouterr().err


def test_a_stream_that_should_decode_alike_gets_other_advice(
    forge, rewritten, commands, out, capsys
):
    path = rewritten(forge(1), out.parent / "exact.lvc", exact=True)
    capsys.readouterr()
    assert commands.decode(path, out / "frames") == 0
    line = capsys.readouterr().err
    assert FORGED.format(2) in line and "it should be so on any machine" in line
    assert "float64" not in line


def test_threads_and_onednn_are_the_encoders(
    zip_codec, stream, rewritten, commands, out, monkeypatch, capsys
):
    found = []
    receive = zip_codec._receive

    def watched(*given):
        found.append(current())
        yield from receive(*given)

    monkeypatch.setattr(zip_codec, "_receive", watched)
    before = current()
    wanted = replace(before, threads=3, onednn=False)
    path = rewritten(stream, out.parent / "v.lvc", numerics=wanted)
    capsys.readouterr()
    assert commands.decode(path, out / "v.y4m") == 0
    assert not capsys.readouterr().err
    assert found == [wanted] and current() == before


@pytest.mark.parametrize(
    ("given", "cores", "threads"), [([], 64, 8), ([], 2, 2), (["--threads=5"], 2, 5)]
)
def test_a_stream_says_how_many_threads_its_encoder_had(
    source, commands, out, monkeypatch, given, cores, threads
):
    monkeypatch.setattr(numerics, "DEFAULT_THREADS", 8)
    torch.set_num_threads(cores)
    assert commands.encode(source, out / "v.lvc", *given) == 0
    assert torch.get_num_threads() == cores
    with open_stream(out / "v.lvc") as reader:
        assert reader.header.numerics == replace(current(), threads=threads)
        assert reader.header.numerics.isa == "avx2"


@pytest.mark.parametrize("threads", ["0", "1025"])
def test_threads_that_a_header_cannot_hold_are_refused(
    source, commands, out, only_error, threads
):
    assert commands.encode(source, out / "v.lvc", f"--threads={threads}") == 2
    assert f"--threads is {threads}: it must be 1 to 1024" in only_error()


def test_an_encoder_that_cannot_have_the_instruction_set_says_so(
    source, commands, out, monkeypatch, capsys
):
    other = replace(current(), isa="native-avx512")
    monkeypatch.setattr(encoding, "current", lambda: other)
    for more in ([], ["--isa=native"], ["--dtype=float64"]):
        assert commands.encode(source, out / "v.lvc", *more) == 0
        with open_stream(out / "v.lvc") as reader:
            assert reader.header.exact == ("--dtype=float64" in more)
    (line,) = capsys.readouterr().err.splitlines()
    assert "avx2 cannot be had" in line and "native-avx512" in line


def test_a_command_in_a_process_that_has_torch_says_why(monkeypatch):
    own = replace(current(), isa="avx2")
    here = replace(own, isa="native-avx512")
    assert "torch was imported before" in own.unlike(here)[0]
    assert "imported" not in here.unlike(own)[0]
    monkeypatch.setattr(numerics, "_cpu", dict)
    assert "imported" not in own.unlike(here)[0]
    # On a GPU the processor does not matter.
    assert own.unlike(replace(here, maker="other"), "cuda") == []


def test_what_is_pinned_is_pinned_before_torch_is_imported(monkeypatch):
    for name in numerics.PINS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_THREAD_LIMIT", "1")
    numerics.pin("avx2")
    assert "ATEN_CPU_CAPABILITY" not in numerics.os.environ
    assert current().isa != "avx2"
    monkeypatch.setattr(numerics.sys, "modules", {})
    numerics.pin("native")
    assert "ATEN_CPU_CAPABILITY" not in numerics.os.environ
    monkeypatch.setattr(numerics, "_cpu", lambda: {"flags": "sse2 fma"})
    numerics.pin("avx2")
    assert "ATEN_CPU_CAPABILITY" not in numerics.os.environ
    monkeypatch.setattr(numerics, "_cpu", lambda: {"flags": "sse2 fma avx2"})
    numerics.pin("avx2")
    assert {n: numerics.os.environ.get(n) for n in numerics.PINS} == numerics.PINS
