"""Progress of long commands: what is done, what runs now, and the time left."""

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.cli import activity as activities
from experiments.cli import progress as shown
from experiments.cli.activity import DECODE, ENCODE, MEASURE, SEARCH, Activity
from experiments.cli.progress import Progress
from experiments.cli.time_left import Pace

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""

    class Clock:
        now = 1000.0

        def pass_by(self, seconds):
            self.now += seconds

    own = Clock()
    monkeypatch.setattr(activities.time, "monotonic", lambda: own.now)
    return own


def work(own, clock, phase, frames, seconds, *, of=10):
    """Do frames of a phase, evenly over so many seconds."""
    own.start(phase, of)
    for _ in range(frames):
        clock.pass_by(seconds / frames)
        own.step()


def test_an_activity_says_phase_and_frames(clock):
    own = Activity()
    assert str(own) == "begins"
    work(own, clock, ENCODE, 3, 6)
    assert str(own) == "encode, 3/10 frames"
    work(own, clock, ENCODE, 10, 6)
    assert str(own) == "encode, all 10 frames given"
    own.start(SEARCH)
    assert list(own.count("abc", SEARCH, ENCODE)) == ["a", "b", "c"]
    assert str(own) == "search of the rate, 3 frames"
    own.start(DECODE, 10)
    assert list(own.count("abc", SEARCH, ENCODE)) == ["a", "b", "c"]
    assert str(own) == "decode and measure, 0/10 frames"
    own.start(MEASURE)
    assert str(own) == "measure"
    assert own.seconds() == pytest.approx({ENCODE: 12.0})


SPAWNS = """
from multiprocessing import get_context
from experiments.cli.activity import ENCODE, Activity, activity

def work(shared):
    activity().share(shared)
    activity().start(ENCODE, 5)
    activity().step()

if __name__ == "__main__":
    own = Activity()
    process = get_context("spawn").Process(target=work, args=(own.shared,))
    process.start()
    process.join()
    print(own)
"""


def test_another_process_is_looked_at(tmp_path):
    (tmp_path / "spawns.py").write_text(SPAWNS)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "spawns.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "encode, 1/5 frames\n", done.stderr


# Time left


def test_time_follows_from_pixels_and_not_from_the_number_of_things(clock):
    pace = Pace()
    pace.add(100, {ENCODE: 10.0, DECODE: 20.0})
    assert pace.left([1000, 50], [], workers=1) == pytest.approx(315)
    assert pace.left([1000, 50], [], workers=2) == pytest.approx(157.5)


def test_what_runs_counts_by_its_frames(clock):
    pace, own = Pace(), Activity()
    pace.add(100, {ENCODE: 10.0, DECODE: 20.0})
    work(own, clock, ENCODE, 4, 4)
    # Six of ten frames, then the decoder.
    assert pace.left([], [(100, own)], workers=1) == pytest.approx(6 + 20)
    own.start(DECODE, 10)
    clock.pass_by(5)
    assert pace.left([], [(100, own)], workers=1) == pytest.approx(20)
    # One worker has it alone, whatever the others do.
    assert pace.left([], [(100, own)], workers=4) == pytest.approx(20)


def test_before_anything_is_finished_its_frames_tell(clock):
    pace, own = Pace(), Activity()
    running = [(100, own)]
    assert pace.left([300], running, workers=1) is None
    own.start(ENCODE, 10)
    # A process starts.
    clock.pass_by(50)
    own.step()
    assert pace.left([300], running, workers=1) is None
    for _ in range(4):
        clock.pass_by(1)
        own.step()
    # A second for each frame; decoding is taken for as slow.
    expected = 5 + 10 + 3 * 20
    assert pace.left([300], running, workers=1) == pytest.approx(expected, abs=0.1)


def test_an_encoder_that_took_all_frames_at_once_promises_nothing(clock):
    pace, own = Pace(), Activity()
    work(own, clock, ENCODE, 10, 0.1)
    clock.pass_by(100)
    assert pace.left([100], [(100, own)], workers=1) is None
    # Once there is one to compare with, its clock counts.
    pace.add(100, {ENCODE: 300.0})
    assert pace.left([], [(100, own)], workers=1) == pytest.approx(199.9)


# What is said


def lines_of(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_a_log_file_gets_plain_lines(capsys, clock):
    own = Activity()
    with Progress("points", {"a": 100, "b": 300}, kept=2) as progress:
        with progress.working("a", own):
            work(own, clock, ENCODE, 10, 10)
        progress.say("a: fine")
        with progress.working("b", own):
            pass
        progress.say("b: fine")
    assert lines_of(capsys) == [
        "2 points to do",
        "a: fine; 3/4 points, 0:00:30 left",
        "b: fine; 4/4 points",
    ]


def test_what_failed_or_was_there_before_tells_nothing_of_the_speed(capsys, clock):
    own = Activity()
    with Progress("points", {"a": 100, "b": 300}, kept=50) as progress:
        with pytest.raises(ValueError, match="x"), progress.working("a", own):
            work(own, clock, ENCODE, 5, 1000)
            raise ValueError("x")
        progress.say("failed: a")
    assert lines_of(capsys)[-1] == "failed: a; 50/52 points"


def test_a_long_silence_is_broken(capsys, monkeypatch):
    monkeypatch.setattr(shown, "FIRST_SIGN", 0.05)
    own = Activity()
    with Progress("points", {"a": 100}, kept=9, world=2, count=lambda: 7) as progress:
        with progress.working("a", own):
            own.start(ENCODE, 5)
            time.sleep(0.4)
    signs = [line for line in lines_of(capsys) if "encode" in line]
    # After 0.1, then 0.3 seconds: two processes take turns, and pauses grow.
    assert signs[0] == "7/10 points; a: encode, 0/5 frames"
    assert len(signs) == 2


def test_nothing_to_do_is_nothing_to_say(capsys):
    with Progress("points", {}, kept=3):
        pass
    assert lines_of(capsys) == []


LIVE = """
import time
from experiments.cli.activity import ENCODE, Activity
from experiments.cli.progress import Progress
own = Activity()
with Progress("points", {"a": 100, "b": 100}) as progress:
    with progress.working("a", own):
        own.start(ENCODE, 5)
        time.sleep(0.6)
    progress.say("a: [bold]fine")
print("result")
"""


def test_a_terminal_is_live_and_results_are_on_standard_output():
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", LIVE],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    said = b""
    try:
        while chunk := os.read(master, 4096):
            said += chunk
    except OSError:
        # The other end is closed.
        pass
    os.close(master)
    assert process.communicate() == (b"result\n", None)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.decode())
    assert "0/2 points" in text and "a: encode, 0/5 frames" in text
    assert "a: [bold]fine; 1/2 points" in text
    # The cursor is given back.
    assert said.rindex(b"\x1b[?25h") > said.rindex(b"\x1b[?25l")
