"""evaluate --scales: a point for each number of scales, with its bytes and error."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from experiments.bitstreams.files import StreamEncoder
from experiments.evaluate.job import Job, Rate
from experiments.evaluate.learned import LearnedCoder, decode_stream
from experiments.results.joining import merge
from experiments.results.result import Point, Result

RATE = "1024"


class SameProcess:
    """Stands for the decoding process where that is not what is tested."""

    def __init__(self):
        self.scales = []

    def generate(self, function, *arguments):
        assert function is decode_stream
        self.scales.append(arguments[4])
        return function(*arguments)


@pytest.fixture
def quick(monkeypatch):
    process = SameProcess()
    monkeypatch.setattr(LearnedCoder, "_decoding_process", lambda self: process)
    return process


@pytest.fixture(scope="module")
def measured(scaled, tmp_path_factory):
    """Two rates, all numbers of scales; another process decodes."""
    output = tmp_path_factory.mktemp("measured") / "results" / "DHVC.json"
    more = ["--rate", "256", RATE, "--scales", "1,2,3,4", "--pictures", "1"]
    assert scaled.evaluate(output, *more) == 0
    return Result.load(output)


def points_at(result, rate=float(RATE)):
    (sequence,) = result.sequences
    return {p.scales: p for p in sequence.points if p.rate == rate}


def test_each_number_of_scales_is_a_point_with_its_own_bytes_and_error(
    scaled, measured
):
    points = points_at(measured)
    assert set(points) == {1, 2, 3, None}
    # The stream of the other fixture has frames that were not rounded to 8 bits.
    source = [
        cv2.imread(str(p))[..., ::-1]
        for p in sorted((scaled.clips / "waves").iterdir())
    ]
    rounded = torch.stack(
        [torch.from_numpy(s.copy()).permute(2, 0, 1) / 255 for s in source]
    )
    path = scaled.stream.with_name("rounded.lvc")
    header, _ = scaled.units_of(scaled.stream)
    coded = StreamEncoder(scaled.codec, header, rounded, path).run()
    header, units = scaled.units_of(path)
    for scales, point in points.items():
        sent = [u for n, u in enumerate(units) if n % 4 < (scales or 4)]
        nbytes = len(header.to_bytes()) + sum(map(scaled.framed, sent)) + 1 + 1 + 4
        assert point.nbytes == nbytes
        assert point.bpp == 8 * nbytes / (scaled.SIDE * scaled.SIDE * scaled.FRAMES)
        assert point.kbps == pytest.approx(8 * nbytes / scaled.FRAMES * 25 / 1000)
        bits = scaled.bits_of(coded, scales)
        assert point.per_frame["bits"] == bits
        shown, _ = scaled.decoded(path, scales)
        for number, frame in enumerate(shown):
            codes = frame.permute(1, 2, 0).mul(255).round().double().numpy()
            psnr = 10 * np.log10(255**2 / ((codes - source[number]) ** 2).mean())
            got = point.per_frame["psnr_rgb"][number]
            assert got == pytest.approx(psnr, abs=1e-5)
    assert points[None].nbytes == coded.nbytes


def test_the_whole_point_tells_the_bits_of_each_scale(scaled, measured):
    points = points_at(measured)
    whole = points[None]
    assert len(whole.scale_bits) == 4
    for scales in (1, 2, 3):
        assert points[scales].scale_bits == []
        parts = scaled.bits_of(whole, scales)
        assert points[scales].per_frame["bits"] == parts
    assert scaled.bits_of(whole) == whole.per_frame["bits"]
    assert "encode" in whole.seconds and "encode" not in points[1].seconds
    assert all(p.seconds["decode"] > 0 for p in points.values())


def test_every_number_of_scales_has_its_own_pictures(measured):
    points = points_at(measured)
    paths = [measured.path.parent / p.pictures["1"] for p in points.values()]
    assert len({path.read_bytes() for path in paths}) == len(points) == 4


def test_the_table_names_the_scales(scaled, quick, tmp_path, capsys):
    more = [f"--rate={RATE}", "--scales", "1", "2"]
    assert scaled.evaluate(tmp_path / "a.json", *more) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    # Its first part says the frames too.
    scales = [row[4] for row in rows if row[1:3] == ["waves", "4"]]
    assert sorted(scales) == ["1", "2", "all"]
    assert sorted(quick.scales, key=str) == [1, 2, None]


def test_what_was_measured_without_scales_gets_them_later(
    scaled, quick, tmp_path, capsys
):
    output = tmp_path / "a.json"
    assert scaled.evaluate(output, f"--rate={RATE}") == 0
    (plain,) = Result.load(output).sequences[0].points
    assert plain.scales is None and len(plain.scale_bits) == 4
    assert scaled.evaluate(output, f"--rate={RATE}", "--scales=1") == 0
    points = points_at(Result.load(output))
    assert set(points) == {1, None}
    assert points[None].per_frame == plain.per_frame
    quick.scales.clear()
    assert scaled.evaluate(output, f"--rate={RATE}", "--scales=1") == 0
    assert scaled.evaluate(output, f"--rate={RATE}") == 0
    assert "1 of 1 points are there already" in capsys.readouterr().err
    assert quick.scales == []
    assert set(points_at(Result.load(output))) == {1, None}


class WrongPreview(SameProcess):
    def generate(self, function, *arguments):
        digest, *rest = yield from function(*arguments)
        return ("0" * 64 if arguments[4] == 2 else digest, *rest)


def test_another_preview_in_the_other_process_is_caught(
    scaled, tmp_path, monkeypatch, capsys
):
    process = WrongPreview()
    monkeypatch.setattr(LearnedCoder, "_decoding_process", lambda self: process)
    output = tmp_path / "a.json"
    more = [f"--rate={RATE}", "--scales"]
    assert scaled.evaluate(output, *more, "1") == 0
    assert scaled.evaluate(tmp_path / "b.json", *more, "1,2") == 2
    assert "decoded other frames than the encoder decoded" in capsys.readouterr().err
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--scales", "1,x"], "--scales 1,x: give numbers"),
        (["--scales", "1,5"], "5 scales: there are 1 to 4"),
        (["--scales", "0"], "0 scales"),
        (["--scales", "1", "--estimate"], "--scales needs real bitstreams"),
    ],
)
def test_impossible_scales_are_one_clear_error(scaled, tmp_path, capsys, more, named):
    assert scaled.evaluate(tmp_path / "a.json", *more) == 2
    assert named in capsys.readouterr().err


def test_a_job_is_done_when_all_its_scales_are(result_of):
    points = [Point(1.0, 0.1), Point(1.0, 0.05, scales=1), Point(2.0, 0.2)]
    result = result_of("a", points)
    sequence = result.sequences[0]
    assert Job(sequence, Rate(1.0)).done_in(result)
    assert Job(sequence, Rate(1.0), scales=(1,)).done_in(result)
    assert not Job(sequence, Rate(1.0), scales=(1, 2)).done_in(result)
    assert not Job(sequence, Rate(2.0), scales=(1,)).done_in(result)
    alone = result_of("a", [points[1]])
    assert not Job(sequence, Rate(1.0), scales=(1,)).done_in(alone)
    merged = merge(replace(result, sequences=[]), [alone, result])
    assert [p.key for p in merged.sequences[0].points] == [
        (1.0, None, 1),
        (1.0, None, None),
        (2.0, None, None),
    ]
