"""Files appear whole or not at all, whoever writes beside them."""

import os

import pytest

from datamodules.whole_files import whole_or_nothing


def test_a_device_is_never_replaced(tmp_path):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    with pytest.raises(FileExistsError, match="is no regular file"):
        with whole_or_nothing(fifo):
            pass
    assert fifo.is_fifo()


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    """As threads do, and processes with the same number on two machines."""
    path = tmp_path / "shared"
    with whole_or_nothing(path) as first:
        first.write_text("first")
        with whole_or_nothing(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["shared"]
    assert path.read_text() == "first"


def test_what_stood_there_stays_if_writing_fails(tmp_path):
    path = tmp_path / "result"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_or_nothing(path) as temporary:
        temporary.write_text("half")
        assert temporary.parent == tmp_path
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize(
    ("name", "message"), [("no/file", "no is no directory"), ("full", "a directory")]
)
def test_a_place_where_no_file_can_be_is_named(tmp_path, name, message):
    (tmp_path / "full").mkdir()
    with pytest.raises(OSError, match=message), whole_or_nothing(tmp_path / name):
        pytest.fail("the block must not run")


def test_a_full_disk_is_named_with_the_file(tmp_path):
    path = tmp_path / "result"
    path.write_text("old")
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        with whole_or_nothing(path) as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_bytes(b"new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result"]
