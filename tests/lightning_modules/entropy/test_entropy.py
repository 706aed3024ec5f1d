import math
import os
import re
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from lightning_modules.entropy import checksums, rans
from lightning_modules.entropy.estimates import gaussian_bits
from lightning_modules.entropy.symbols import SymbolDecoder, SymbolEncoder, tally
from lightning_modules.entropy.tables import CdfTables, gaussian_tables, tables_from_pmf

SCALES = np.exp(np.linspace(math.log(0.11), math.log(16), 128))
TABLES = gaussian_tables(SCALES, max_symbol=8)
WIDE = gaussian_tables(SCALES)


def draw(count, seed=0, spread=1.0, tables=TABLES):
    """Return Gaussian symbols, wider than their tables say by ``spread``."""
    generator = np.random.default_rng(seed)
    indices = generator.integers(0, len(tables), count).astype(np.int32)
    values = generator.normal(0, 1, count) * SCALES[indices] * spread
    return np.rint(values).astype(np.int32), indices


def encode(*pushes):
    encoder = SymbolEncoder()
    for push in pushes:
        encoder.push(*push)
    return encoder.finish(), encoder.checksum


def information(values, indices, tables):
    """Return the bytes that values within their tables are worth."""
    number = values - tables.offset[indices]
    frequency = tables.cdf[indices, number + 1] - tables.cdf[indices, number]
    return -np.log2(frequency / 65536).sum() / 8


@pytest.mark.parametrize("count", [0, 1, 2, 7, 1000, rans.MANY - 1, rans.MANY])
@pytest.mark.parametrize("spread", [0.1, 1.0, 100.0])
def test_symbols_come_back(count, spread):
    values, indices = draw(count, spread=spread)
    data, checksum = encode((values, indices, TABLES))
    decoder = SymbolDecoder(data)
    assert np.array_equal(decoder.pull(indices, TABLES), values)
    decoder.finish()
    assert decoder.checksum == checksum


def test_values_up_to_a_billion_come_back():
    edges = np.array([0, 1, 2, 3, 8, 9, 2**15, 2**16, 2**29, 2**30 - 1, 2**30])
    values = np.concatenate([edges, -edges])
    for offset in (-(2**30), -3, 2**30):
        tables = tables_from_pmf([[0.2] * 4], [4], [offset], 0.2)
        indices = np.zeros(len(values), dtype=np.uint8)
        data, _ = encode((values, indices, tables))
        decoder = SymbolDecoder(data)
        assert np.array_equal(decoder.pull(indices, tables), values)
        decoder.finish()


@pytest.mark.parametrize("count", [3000, rans.MANY])
def test_pushes_with_other_tables_form_one_stream_that_is_read_step_by_step(count):
    first, first_rows = draw(count // 3, seed=1)
    second, second_rows = draw(count - count // 3, seed=2, tables=WIDE)
    nothing = np.zeros(0, dtype=np.int32)
    data, checksum = encode(
        (first, first_rows, TABLES),
        (nothing, nothing, WIDE),
        (second, second_rows, WIDE),
    )
    decoder = SymbolDecoder(data)
    parts = [decoder.pull(part, TABLES) for part in np.array_split(first_rows, 7)]
    parts += [decoder.pull(part, WIDE) for part in np.array_split(second_rows, 5)]
    decoder.finish()
    assert np.array_equal(np.concatenate(parts), np.concatenate([first, second]))
    assert decoder.checksum == checksum


def test_the_encoder_keeps_no_view_of_its_callers_arrays():
    values, indices = draw(100)
    encoder = SymbolEncoder()
    encoder.push(values, indices, TABLES)
    expected = values.copy()
    values[:] = 0
    assert np.array_equal(
        SymbolDecoder(encoder.finish()).pull(indices, TABLES), expected
    )


def test_the_checksum_covers_symbols_and_indices():
    values, indices = draw(100)
    checksum = encode((values, indices, TABLES))[1]
    other_value, other_index = values.copy(), indices.copy()
    other_value[50] += 1
    other_index[50] ^= 1
    assert encode((other_value, indices, TABLES))[1] != checksum
    assert encode((values, other_index, TABLES))[1] != checksum
    halves = [(values[:9], indices[:9], TABLES), (values[9:], indices[9:], TABLES)]
    assert encode(*halves)[1] == checksum


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1003])
@pytest.mark.parametrize("spread", [1, 60, 2.0**30])
def test_checksums_are_those_of_the_arrays_bytes(count, spread):
    generator = np.random.default_rng(count)
    values = np.clip(generator.normal(0, spread, count), -(2**31), 2**31 - 1)
    values = values.astype(np.int32)
    rows = generator.integers(0, min(int(5 * spread), 65536), count).astype(np.uint16)
    for function, numbers in (
        (checksums.crc_of_values, values),
        (checksums.crc_of_rows, rows),
    ):
        expected = zlib.crc32(numbers.astype("<i4").tobytes(), 77)
        assert function(np.uint32(77), numbers, checksums.TABLES) == expected


def test_a_flipped_index_desynchronises_and_is_noticed():
    values, indices = draw(2000)
    data, checksum = encode((values, indices, TABLES))
    indices[1000] += 1 if indices[1000] < 127 else -1
    decoder = SymbolDecoder(data)
    read = decoder.pull(indices, TABLES)
    assert (read[1100:] != values[1100:]).any()
    assert decoder.checksum != checksum
    with pytest.raises(ValueError, match="does not end"):
        decoder.finish()


def test_reading_too_little_or_too_much_is_noticed():
    values, indices = draw(500)
    data, _ = encode((values, indices, TABLES))
    decoder = SymbolDecoder(data)
    decoder.pull(indices[:-40], TABLES)
    with pytest.raises(ValueError, match="does not end"):
        decoder.finish()
    with pytest.raises(ValueError, match="ends before value 500:"):
        SymbolDecoder(data).pull(np.append(indices, indices), TABLES)


def test_a_stream_costs_what_its_symbols_are_worth_and_three_bytes():
    for count in (0, 1, 10, 1000, 50_000):
        values, indices = draw(count, tables=WIDE)
        inside = np.abs(values) <= -WIDE.offset[indices]
        values, indices = values[inside], indices[inside]
        data, _ = encode((values, indices, WIDE))
        worth = information(values, indices, WIDE)
        assert len(data) <= 1.0001 * worth + 3.5
    values, indices = draw(rans.MANY, tables=WIDE, spread=0.9)
    inside = np.abs(values) <= -WIDE.offset[indices]
    values = np.where(inside, values, 0)
    data, _ = encode((values, indices, WIDE))
    assert data[0] == 0
    assert len(data) <= 1.0001 * information(values, indices, WIDE) + 40


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
def test_streams_are_no_longer_than_compressais(spread):
    ans = pytest.importorskip("compressai.ans")
    values, indices = draw(50_000, seed=3, spread=spread)
    data, _ = encode((values, indices, TABLES))
    theirs = ans.RansEncoder().encode_with_indexes(
        values.tolist(),
        indices.tolist(),
        TABLES.cdf.tolist(),
        TABLES.length.tolist(),
        TABLES.offset.tolist(),
    )
    assert len(data) <= 1.005 * len(theirs) + 16


def test_the_buffer_grows_when_every_symbol_is_the_worst():
    values = np.full(4000, 2**30, dtype=np.int32)
    indices = np.zeros(4000, dtype=np.int32)
    data, _ = encode((values, indices, TABLES))
    assert len(data) > 8 * 4000
    decoder = SymbolDecoder(data)
    assert np.array_equal(decoder.pull(indices, TABLES), values)
    decoder.finish()


def test_values_never_need_more_words_than_are_made_room_for():
    # The longest code there is, from states that are always about to overflow.
    tables = tables_from_pmf([[1.0]], [1], [-(2**30)], 0.0)
    rows = np.zeros(1, dtype=np.uint16)
    for value in (2**30, 2**30 - 1, 1 - 2**30, 3 - 2**30, -(2**30)):
        block, _ = rans.block_of(np.full(1, value, np.int32), rows, tables)
        states = np.full(1, (65535 << 48) - 1, dtype=np.uint64)
        words = np.empty(block.steps + 1, dtype=np.uint32)
        cursor = rans.encode_block(
            block.places, block.distances, tables.entries, states, 0, words, block.steps
        )
        assert 0 <= cursor <= block.steps


def test_garbage_and_truncation_are_refused_and_harm_nothing():
    generator = np.random.default_rng(5)
    values, indices = draw(300, seed=4, spread=3.0)
    data, _ = encode((values, indices, TABLES))
    streams = [data[:length] for length in range(len(data))]
    streams += [data + b"\0" * extra for extra in (1, 2, 3, 4, 8)]
    streams += [generator.bytes(size) for size in range(400)]
    streams += [b"\0" + generator.bytes(size) for size in range(400)]
    streams += [bytes([byte]) * size for byte in (0, 255) for size in (1, 9, 33, 333)]
    for stream in streams:
        with pytest.raises(ValueError):
            decoder = SymbolDecoder(stream)
            decoder.pull(indices, TABLES)
            decoder.finish()


def test_words_behind_a_long_stream_are_noticed(monkeypatch):
    monkeypatch.setattr(rans, "MANY", 1)
    values, indices = draw(300)
    data, _ = encode((values, indices, TABLES))
    decoder = SymbolDecoder(data + bytes(8))
    assert np.array_equal(decoder.pull(indices, TABLES), values)
    with pytest.raises(ValueError, match="8 bytes are left"):
        decoder.finish()


def test_streams_in_several_threads_share_nothing():
    draws = [draw(20_000, seed=seed, spread=2.0) for seed in range(8)]
    expected = [encode((*each, TABLES)) for each in draws]

    def there_and_back(drawn):
        values, indices = drawn
        data, checksum = encode((values, indices, TABLES))
        decoder = SymbolDecoder(data)
        parts = [decoder.pull(part, TABLES) for part in np.array_split(indices, 50)]
        assert np.array_equal(np.concatenate(parts), values)
        assert decoder.checksum == checksum
        return data, checksum

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(there_and_back, draws)) == expected


def test_code_is_compiled_anew_where_none_can_be_kept(monkeypatch):
    from numba.core import caching

    from lightning_modules.entropy.compiled import compiled

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    with pytest.warns(UserWarning, match="set NUMBA_CACHE_DIR"):
        doubled = compiled("int64(int64)")(lambda x: 2 * x)
    assert doubled(4) == 8


def test_counts_are_those_of_sorted_values():
    for spread in (1, 1e9):
        values = np.rint(np.random.default_rng(0).normal(0, spread, 99))
        values = np.clip(values, -(2**30), 2**30).astype(np.int32)
        found, counts = np.unique(values, return_counts=True)
        assert tally(values) == dict(zip(found.tolist(), counts.tolist(), strict=True))
    assert tally(values[:0]) == {}


def test_every_flipped_bit_is_noticed():
    values, indices = draw(100, spread=3.0)
    data, checksum = encode((values, indices, TABLES))
    for position in range(8 * len(data)):
        broken = bytearray(data)
        broken[position // 8] ^= 1 << position % 8
        try:
            decoder = SymbolDecoder(bytes(broken))
            decoder.pull(indices, TABLES)
            decoder.finish()
        except ValueError:
            continue
        assert decoder.checksum != checksum


@pytest.mark.parametrize(
    ("values", "indices"),
    [
        (np.array([2**30 + 1]), np.array([0])),
        (np.array([0]), np.array([128])),
        (np.array([0]), np.array([-1])),
        (np.array([0.5]), np.array([0])),
        (np.array([[0]]), np.array([[0]])),
        (np.array([0, 1]), np.array([0])),
    ],
)
def test_arrays_that_cannot_be_coded_are_refused(values, indices):
    encoder = SymbolEncoder()
    with pytest.raises(ValueError):
        encoder.push(values, indices, TABLES)
    data, _ = encode()
    if indices.max() > 127 or indices.min() < 0:
        with pytest.raises(ValueError, match=r"0\.\.127"):
            SymbolDecoder(data).pull(indices, TABLES)


def test_streams_keep_their_bytes():
    # Files outlive programs: a change here needs a new version of the container.
    cdf = np.array([[0, 100, 40000, 65000, 65536], [0, 65535, 65536, 65536, 65536]])
    tables = CdfTables(cdf, np.array([5, 3]), np.array([-1, 7]))
    values = np.array([0, 1, -1, 7, -40, 1000, 7, 0, 2**20])
    indices = np.array([0, 0, 0, 1, 0, 0, 1, 0, 1])
    assert (
        encode((values, indices, tables))[0].hex()
        == "1274cd488c5b5878586df3ff05f1ffffff"
    )
    assert encode()[0].hex() == "8000"


def read_as_documented(data, indices, tables):
    """Decode by the words of the module's docstring, with Python's own numbers."""
    if data[0] == 0:
        states = [int.from_bytes(data[i : i + 8], "little") for i in range(1, 33, 8)]
        data = data[33:]
    else:
        head = len(data) if len(data) <= 8 else 5 + (len(data) - 5) % 4
        states = [int.from_bytes(data[:head], "big")]
        data = data[head:]
    words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
    words.reverse()

    def drop(lane, start, frequency):
        x = states[lane]
        x = frequency * (x >> 16) + (x & 65535) - start
        if x < 1 << 32 and words:
            x = x << 32 | words.pop()
        states[lane] = x

    def bits(lane, count):
        value = (states[lane] & 65535) >> (16 - count)
        drop(lane, value << (16 - count), 1 << (16 - count))
        return value

    values = []
    for i, row in enumerate(indices):
        lane = i % len(states)
        cdf = tables.cdf[row, : tables.length[row]].tolist()
        number = sum(entry <= states[lane] & 65535 for entry in cdf) - 1
        drop(lane, cdf[number], cdf[number + 1] - cdf[number])
        if number == len(cdf) - 2:
            size = 0
            while bits(lane, 1):
                size += 1
            distance = 1 << size
            for at in range(0, size, 16):
                distance |= bits(lane, min(16, size - at)) << at
            above = distance % 2 == 1
            number = number + distance // 2 if above else -(distance // 2)
        values.append(number + int(tables.offset[row]))
    return values, set(states), words


@pytest.mark.parametrize(("many", "start"), [(rans.MANY, 1 << 15), (1, 1 << 32)])
def test_streams_are_as_documented(monkeypatch, many, start):
    monkeypatch.setattr(rans, "MANY", many)
    values, indices = draw(3000, seed=8, spread=3.0)
    values[::100] *= 2**20
    data, _ = encode((values, indices, TABLES))
    read, states, left = read_as_documented(data, indices, TABLES)
    assert read == values.tolist()
    assert states == {start}
    assert not left


def test_importing_entropy_does_not_import_numba():
    script = (
        "import sys, lightning_modules.entropy.symbols; print('numba' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    printed = subprocess.check_output(command, env=environment, text=True)
    assert printed.strip() == "False"


def test_estimated_bits_are_the_bytes_of_the_stream():
    values, indices = draw(50_000, seed=6, tables=WIDE)
    estimate = gaussian_bits(
        torch.from_numpy(values).float(), torch.from_numpy(SCALES[indices]).float()
    )
    data, _ = encode((values, indices, WIDE))
    assert 8 * len(data) == pytest.approx(estimate.sum().item(), rel=0.002, abs=64)


@pytest.mark.parametrize("count", [1000, 2 * rans.MANY])
def test_a_stream_that_is_exhausted_is_noticed_then_and_not_at_its_end(count):
    generator = np.random.default_rng(0)
    rows = generator.integers(60, 128, count).astype(np.int32)
    values = np.round(generator.normal(size=count) * SCALES[rows]).astype(np.int32)
    data, _ = encode((values, rows, WIDE))
    decoder = SymbolDecoder(data)
    assert np.array_equal(decoder.pull(rows, WIDE), values)
    decoder.finish()
    # Half of the words: half of the values, give or take what a state holds.
    cut = data[: len(data) // 2 - (len(data) // 2 - len(data)) % 4]
    decoder = SymbolDecoder(cut)
    with pytest.raises(ValueError, match="the stream ends before value") as caught:
        decoder.pull(np.tile(rows, 9)[: min(9 * count, 9 * rans.MANY)], WIDE)
    ended = int(re.search(r"before value (\d+)", str(caught.value))[1])
    assert 0.4 * count < ended < 0.6 * count


def test_a_stream_of_one_state_cannot_hold_as_many_values_as_have_four():
    data, _ = encode((np.zeros(9, np.int32), np.zeros(9, np.int32), WIDE))
    many = np.zeros(rans.MANY, np.int32)
    with pytest.raises(ValueError, match=f"has fewer than {rans.MANY}"):
        SymbolDecoder(data).pull(many, WIDE)


# The table's most probable value stands at its beginning, in its middle, at its end.
CHEAP = [[60000, 1], [1, 1, 60000, 1, 1], [1, 1, 1, 60000], [3, 1]]


@pytest.mark.parametrize("pmf", CHEAP)
def test_what_the_cheapest_values_take_is_known_before_they_are_read(pmf):
    count = 8 * rans.MANY
    tables = tables_from_pmf([pmf], [len(pmf)], [0], 0.0)
    cheapest = int(np.diff(tables.cdf[0]).argmax())
    values = np.full(count, cheapest, dtype=np.int32)
    data, _ = encode((values, np.zeros(count, np.int32), tables))
    bits = count * tables.least_bits
    assert 0 < tables.least_bits < 1
    decoder = SymbolDecoder(data)
    decoder.check_left(count, bits)
    with pytest.raises(ValueError, match=rf"{2 * count} more values take \d+ bytes"):
        decoder.check_left(2 * count, 2 * bits + 64)
    # And of what is left of them.
    decoder.pull(np.zeros(count // 2, np.int32), tables)
    decoder.check_left(count // 2, bits / 2)
    with pytest.raises(ValueError, match="cut or damaged"):
        decoder.check_left(count, bits + 64)
