"""Lists that people wrote on any system: byte-order marks and line ends are no text."""

import json

import pytest

from datamodules.sequences.find import find_sequences
from datamodules.sources.openvid import read_table
from datamodules.sources.vimeo90k import read_list
from datamodules.texts import read_text
from experiments.anchor.given import is_shared, read_bytes
from experiments.fit.options import build_parser
from experiments.results.typed_json import read_json

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


@pytest.fixture(params=ENCODINGS)
def write(request, tmp_path):
    """Write a text with a mark, and with the line ends of Windows."""

    def put(name, text):
        path = tmp_path / name
        path.write_bytes(text.replace("\n", "\r\n").encode(request.param))
        return path

    return put


def test_lists_of_clips_and_tables_are_read(write):
    listed = write("train.list", "00001/0001/im1.png\nsequences/00002/0003\n")
    assert read_list(listed) == ["00001/0001", "00002/0003"]
    table = write("t.csv", 'video,caption\na.mp4,"says ""é""\nand more"\nb.mp4,\n')
    assert read_table(table) == ["a.mp4", "b.mp4"]


def test_names_that_are_not_utf8_stay(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"caf\xe9/0001\r\n")
    assert read_list(path) == ["caf\udce9/0001"]


def test_json_files_are_read(write, samples_of_two, tmp_path):
    data = {"test_classes": {"mine": samples_of_two}, "root_path": str(tmp_path)}
    path = write("set.json", json.dumps(data))
    assert [s.name for s in find_sequences([str(path)])] == ["a_24x16_50"]
    assert read_json(path) == data
    numbers = write("bytes.json", '{"a": [3, 4]}')
    assert is_shared(numbers)
    (sequence,) = find_sequences([str(path)])
    assert read_bytes(write("bytes.txt", "5\n6\n"), sequence) == [5, 6]


@pytest.fixture
def samples_of_two(tmp_path):
    (tmp_path / "a_24x16_50.yuv").write_bytes(bytes(24 * 16 * 3))
    entry = {"width": 24, "height": 16, "frames": 2, "gop": 2}
    return {
        "test": 1,
        "src_type": "yuv420",
        "base_path": ".",
        "sequences": {"a_24x16_50.yuv": entry},
    }


@pytest.mark.parametrize(
    ("text", "value"), [("tracking:\n  group: ä\n", "ä"), ("trainer: {devices: 3}", 3)]
)
def test_layers_are_read(write, text, value):
    layer = write("layer.yaml", text)
    config = build_parser(describe_only=True).parse_args(["--config", str(layer)])
    assert value in (config.tracking.group, config.trainer.devices)


def test_a_cut_text_is_an_error(tmp_path):
    path = tmp_path / "cut.txt"
    path.write_bytes("a".encode("utf-16")[:-1])
    with pytest.raises(UnicodeError):
        read_text(path)
