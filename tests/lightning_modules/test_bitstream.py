import io
import struct
import tracemalloc
import zlib
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest

from lightning_modules.bitstream import (
    MAGIC,
    BitstreamError,
    BitstreamReader,
    BitstreamWriter,
    Packet,
    StreamHeader,
    varint,
)
from lightning_modules.numerics import ISAS, MAKERS, NumericConfiguration

HEADER = StreamHeader(
    codec="UI2C",
    fingerprint=b"12345678",
    width=416,
    height=240,
    fps=Fraction(30000, 1001),
    rate=21.5,
    dtype="bfloat16",
    device="cuda",
    numerics=NumericConfiguration(3, True, "avx2", "GenuineIntel", "2.15.0"),
)
UNITS = [
    Packet(b"the first payload", 2, 0xDEADBEEF, pixels=0xBEEF),
    Packet(b"", 1, 0),
    Packet(bytes(range(200)), 130, 2**32 - 1, pixels=0),
]


def write(units=UNITS, header=HEADER):
    """Return the file and the position where each of its parts ends."""
    file = io.BytesIO()
    writer = BitstreamWriter(file, header)
    ends = [writer.nbytes]
    for unit in units:
        writer.write(unit)
        ends.append(writer.nbytes)
    writer.close()
    assert writer.nbytes == len(file.getvalue())
    return file.getvalue(), ends


def read_until_error(data):
    """Return the units before the error, whether the end was seen, and the error."""
    units = []
    reader = None
    try:
        reader = BitstreamReader(io.BytesIO(data))
        units.extend(reader)
    except BitstreamError as error:
        return units, reader is not None and reader.complete, error
    return units, reader.complete, None


def rewrite_header(data, **numbers):
    """Change fixed fields of the header and make its CRC right again."""
    names = "fingerprint width height numerator denominator rate dtype colour".split()
    fixed = struct.Struct("<8sHHIIdBB")
    length = 6 + data[5]
    values = dict(zip(names, fixed.unpack_from(data, 6), strict=True)) | numbers
    head = data[:6] + fixed.pack(*values.values()) + data[6 + fixed.size : length]
    return head + struct.pack("<I", zlib.crc32(head)) + data[length + 4 :]


def test_what_was_written_is_read():
    data, _ = write()
    reader = BitstreamReader(io.BytesIO(data))
    assert reader.header == HEADER
    assert not reader.complete
    assert list(reader) == UNITS
    assert reader.complete
    assert reader.frames == 133


def test_a_frame_can_be_several_units():
    units = [Packet(b"scale", frames, 7) for frames in (0, 0, 1, 0, 0, 1)]
    data, _ = write(units)
    reader = BitstreamReader(io.BytesIO(data))
    assert list(reader) == units
    assert reader.frames == 2
    assert reader.units == 6


def test_a_video_without_units_is_whole():
    data, _ = write([])
    assert read_until_error(data) == ([], True, None)


def test_the_header_is_small():
    assert len(HEADER.to_bytes()) - len(HEADER.codec) < 60


def test_the_end_and_a_units_frame_cost_few_bytes():
    for pixels, nbytes in ((None, 12), (7, 14)):
        data, ends = write([Packet(bytes(300), 2, 1, pixels=pixels)])
        assert ends[1] - ends[0] - 300 == nbytes
        assert len(data) - ends[1] == 6


def test_every_flipped_byte_is_refused():
    data, ends = write()
    for position in range(len(data)):
        for mask in (*(1 << bit for bit in range(8)), 0xFF):
            broken = bytearray(data)
            broken[position] ^= mask
            units, complete, error = read_until_error(bytes(broken))
            assert error is not None, (position, mask)
            assert not complete
            whole = sum(end <= position for end in ends[1:])
            assert units == UNITS[:whole]


def test_every_truncation_is_refused_and_yields_the_units_before_it():
    data, ends = write()
    for length in range(len(data)):
        units, complete, error = read_until_error(data[:length])
        assert error is not None, length
        assert not complete
        assert units == UNITS[: sum(end <= length for end in ends[1:])]
        assert ("--partial" in str(error)) == bool(units)


def test_bytes_after_the_end_are_refused():
    data, _ = write()
    units, complete, error = read_until_error(data + b"\0")
    assert units == UNITS
    assert not complete
    assert "follow the end" in str(error)


def test_units_cannot_change_places_be_repeated_or_vanish():
    data, ends = write([Packet(b"aa", 1, 1), Packet(b"bb", 1, 2)])
    head, tail = data[: ends[0]], data[ends[2] :]
    first, second = data[ends[0] : ends[1]], data[ends[1] : ends[2]]
    for order in (second + first, first + first, first, first + second + second):
        assert read_until_error(head + order + tail)[2] is not None
    assert read_until_error(head + first + second + tail)[2] is None


def test_a_units_bytes_do_not_fit_another_stream_nor_another_header():
    """Each file is whole, and so is each part of a splice of them."""
    units = [Packet(bytes([n]), 1, n) for n in range(3)]
    first, ends = write(units)
    others = [
        (write([Packet(bytes([n + 9]), 1, n) for n in range(3)]), 1),
        # Of the same frames, with a header that differs in what no codec looks at.
        (write(units, replace(HEADER, rate=22.0)), 0),
    ]
    for (other, places), least in others:
        for count in range(least, 4):
            spliced = first[: ends[count]] + other[places[count] :]
            units, complete, error = read_until_error(spliced)
            assert len(units) == count and not complete and error is not None


def rechained(data, ends, change):
    """Change a unit's head and make all CRCs right again, but not what they cover."""
    crc = struct.unpack("<I", data[ends[0] - 4 : ends[0]])[0]
    parts = [data[: ends[0]]]
    for number, (start, end) in enumerate(pairwise(ends)):
        raw = change(data[start : end - 4]) if number == 1 else data[start : end - 4]
        crc = zlib.crc32(raw, crc)
        parts.append(raw + struct.pack("<I", crc))
    return b"".join(parts), crc


def test_a_false_number_of_frames_spoils_the_checksum_of_symbols():
    units = [Packet(b"payload", 2, n) for n in range(3)]
    data, ends = write(units)
    body, crc = rechained(data, ends, lambda raw: raw[:2] + b"\1" + raw[3:])
    end = b"E" + varint(5)
    found, complete, error = read_until_error(
        body + end + struct.pack("<I", zlib.crc32(end, crc))
    )
    assert complete and error is None
    assert [unit.frames for unit in found] == [2, 1, 2]
    assert [unit.checksum == n for n, unit in enumerate(found)] == [True, False, True]


def test_a_false_size_spoils_the_checksum_of_symbols():
    data, ends = write([Packet(b"payload", 2, 7)])
    head = rewrite_header(data, width=415)[: ends[0]]
    crc = struct.unpack("<I", head[-4:])[0]
    parts = [head]
    for raw in (data[ends[0] : ends[1] - 4], data[ends[1] : -4]):
        crc = zlib.crc32(raw, crc)
        parts.append(raw + struct.pack("<I", crc))
    ((unit,), complete, _) = read_until_error(b"".join(parts))
    assert complete and unit.checksum != 7


def version_1(units, header=HEADER):
    """Return a file as version 1 described it."""
    numerics = header.numerics.to_bytes()
    head = bytearray(header.to_bytes()[: -4 - len(numerics)])
    head[4], head[5] = 1, head[5] - len(numerics)
    parts = [bytes(head), struct.pack("<I", zlib.crc32(head))]
    for number, unit in enumerate(units):
        raw = b"U" + varint(len(unit.payload)) + varint(unit.frames)
        raw += struct.pack("<I", unit.checksum) + unit.payload
        parts.append(raw + struct.pack("<I", zlib.crc32(raw, number)))
    end = b"E" + varint(sum(unit.frames for unit in units))
    parts.append(end + struct.pack("<I", zlib.crc32(end, len(units))))
    return b"".join(parts)


def test_a_file_of_version_1_is_read_by_its_own_rules():
    plain = [replace(unit, pixels=None) for unit in UNITS]
    data = version_1(plain)
    reader = BitstreamReader(io.BytesIO(data))
    assert reader.header == replace(HEADER, numerics=None)
    assert list(reader) == plain and reader.complete
    start = 6 + data[5] + 4
    assert read_until_error(data[:start] + b"P" + data[start + 1 :])[0] == []
    with pytest.raises(BitstreamError, match="makes no sense"):
        BitstreamReader(io.BytesIO(version_1(plain, replace(HEADER, exact=True))))
    with pytest.raises(BitstreamError, match="must say what the encoder ran with"):
        BitstreamWriter(io.BytesIO(), reader.header)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("onednn", [False, True])
@pytest.mark.parametrize("kernels", [0, 1])
def test_what_the_encoder_ran_with_is_read_as_it_was_written(isa, onednn, kernels):
    for maker, threads in zip(MAKERS, (1, 8, 1024), strict=True):
        known = threads, onednn, isa, maker, "2.15.0"
        numerics = NumericConfiguration(*known, kernels)
        # Streams that name no kernels had those of generation 0.
        assert kernels or numerics == NumericConfiguration(*known)
        header = replace(HEADER, numerics=numerics, exact=threads > 1)
        data, _ = write(header=header)
        assert BitstreamReader(io.BytesIO(data)).header == header


@pytest.mark.parametrize(
    "numerics",
    [
        b"\0\0\0\0\1" + b"2",
        b"\1\4\0\0\1" + b"2",
        b"\1\0\5\0\1" + b"2",
        b"\1\0\x45\0\1" + b"2",
        b"\1\0\0\3\1" + b"2",
        b"\1\0\0\0\0",
        b"\1\0\0\0\2" + b"2",
        b"\1\0\0\0\1" + b"22",
        b"\1\0",
        b"",
    ],
)
def test_an_absurd_configuration_is_refused_though_its_crc_is_right(numerics):
    own = HEADER.numerics.to_bytes()
    head = HEADER.to_bytes()[: -4 - len(own)] + numerics
    head = head[:5] + bytes([len(head) - 6]) + head[6:]
    with pytest.raises(BitstreamError, match="makes no sense"):
        BitstreamReader(io.BytesIO(head + struct.pack("<I", zlib.crc32(head))))


def test_errors_say_what_is_wrong_and_what_to_do():
    data, ends = write()
    damaged = bytearray(data)
    damaged[ends[1] + 2] ^= 1
    for broken, words in (
        (b"", "not a bitstream"),
        (b"RIFF" + data[4:], "not a bitstream"),
        (data[:4] + b"\7" + data[5:], "version 7"),
        (data[:20], "within or before the header"),
        (data[: ends[1] + 4], f"ends at byte {ends[1] + 4}, within or before unit 1"),
        (bytes(damaged), f"unit 1 at byte {ends[1]} is damaged"),
        (bytes(damaged), "decode the 2 frames before it with --partial"),
    ):
        message = str(read_until_error(broken)[2])
        assert words in message
        assert "\n" not in message


@pytest.mark.parametrize(
    "numbers",
    [
        {"width": 0},
        {"height": 0},
        {"width": 16385},
        {"width": 16384, "height": 16384},
        {"numerator": 0},
        {"denominator": 0},
        {"rate": float("nan")},
        {"rate": float("inf")},
        {"dtype": 200},
        {"colour": 9},
    ],
)
def test_an_absurd_header_is_refused_though_its_crc_is_right(numbers):
    data, _ = write()
    assert read_until_error(rewrite_header(data))[2] is None
    with pytest.raises(BitstreamError):
        BitstreamReader(io.BytesIO(rewrite_header(data, **numbers)))


def test_a_header_of_any_length_with_a_right_crc_raises_nothing_else():
    for length in range(256):
        for filler in (b"\0", b"\1", b"\xff"):
            for version in (1, 2):
                head = MAGIC + bytes([version, length]) + filler * length
                data = head + struct.pack("<I", zlib.crc32(head))
                with pytest.raises(BitstreamError):
                    BitstreamReader(io.BytesIO(data))


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (b"\xff" * 8 + b"\x7f" + b"\1", "claims 9223372036854775807 bytes"),
        (b"\x80\x80\x80\x10\1", "claims 33554432 bytes for 1 frames"),
        (b"\xff" * 20, "a number in it does not end"),
        (b"\x05\x81\x20", "claims 4097 frames"),
        (b"\x05\xff\xff\xff\x7f", "claims 268435455 frames"),
    ],
)
def test_an_absurd_unit_is_refused_before_memory_is_taken(claim, words):
    data, ends = write()
    reader = BitstreamReader(io.BytesIO(data[: ends[0]] + b"U" + claim + bytes(100)))
    tracemalloc.start()
    with pytest.raises(BitstreamError, match=words):
        next(iter(reader))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_possible_length_that_is_not_there_takes_no_memory(tmp_path):
    data, ends = write(header=replace(HEADER, width=8192, height=8192))
    claim = b"U" + b"\x80\x80\x80\x80\x04" + b"\1"  # 2^30 bytes, allowed at this size
    # A file, because its own read() makes room for all that it is asked for.
    (tmp_path / "cut.lvc").write_bytes(data[: ends[0]] + claim + bytes(1000))
    with (tmp_path / "cut.lvc").open("rb") as file:
        reader = BitstreamReader(file)
        tracemalloc.start()
        with pytest.raises(BitstreamError, match="the file ends"):
            next(iter(reader))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 << 20


def test_an_end_that_counts_other_frames_is_refused_though_its_crc_is_right():
    data, ends = write()
    for frames in (0, 1, 100):
        end = b"E" + bytes([frames])
        (last,) = struct.unpack("<I", data[ends[-1] - 4 : ends[-1]])
        crc = struct.pack("<I", zlib.crc32(end, last))
        units, complete, error = read_until_error(data[: ends[-1]] + end + crc)
        assert units == UNITS
        assert not complete
        assert f"counts {frames} frames, not 133" in str(error)


@pytest.mark.parametrize(
    "unit",
    [
        Packet(b"", -1, 0),
        Packet(b"", 5000, 0),
        Packet(b"", 1, -1),
        Packet(b"", 1, 1 << 32),
        Packet(bytes(1700), 1, 0),
    ],
)
def test_a_writer_refuses_what_a_reader_would(unit, monkeypatch):
    monkeypatch.setattr(StreamHeader, "max_payload", lambda self, frames: 1699)
    writer = BitstreamWriter(io.BytesIO(), HEADER)
    before = writer.nbytes
    with pytest.raises(BitstreamError):
        writer.write(unit)
    assert writer.nbytes == before


@pytest.mark.parametrize(
    "values",
    [
        {"width": 0},
        {"height": 16385},
        {"fps": Fraction(0)},
        {"fps": Fraction(1, 1 << 32)},
        {"rate": float("nan")},
        {"fingerprint": b"short"},
        {"dtype": "int8"},
        {"colour": "bt601"},
        {"codec": ""},
        {"codec": "UI²C"},
        {"device": "x" * 65},
    ],
)
def test_a_header_refuses_values_that_no_stream_can_have(values):
    with pytest.raises(BitstreamError):
        replace(HEADER, **values)


def test_pipes_work_that_cannot_seek_and_give_few_bytes_at_a_time():
    class Pipe(io.RawIOBase):
        def __init__(self, data=b""):
            self.data = data

        def readable(self):
            return True

        def writable(self):
            return True

        def read(self, size=-1):
            part, self.data = self.data[: min(size, 3)], self.data[min(size, 3) :]
            return part

        def write(self, data):
            self.data += data
            return len(data)

    pipe = Pipe()
    writer = BitstreamWriter(pipe, HEADER)
    for unit in UNITS:
        writer.write(unit)
    writer.close()
    assert pipe.data == write()[0]
    assert list(BitstreamReader(pipe)) == UNITS
