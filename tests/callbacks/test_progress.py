"""The progress of a stage, in a log file and on a terminal."""

import io

from lightning.pytorch import Callback
from rich.console import Console

from callbacks.guards import RealBitsGuard
from callbacks.progress import StageProgress


def test_a_log_file_gets_plain_lines(tiny_module, fit):
    text = io.StringIO()
    bar = StageProgress(seconds=0.0, console=Console(file=text, force_terminal=False))
    fit(tiny_module(), RealBitsGuard(), bar)
    lines = text.getvalue().splitlines()
    assert lines[0] == "stage 2/3 intra: 4 steps"
    assert lines[1].startswith("stage 2/3 intra  1/4  loss ")
    assert "0.2500 bpp  31.00 dB  0:00:0" in lines[1]
    assert "stage 2/3 intra  validation at step 2  24.0000 real bpp" in lines
    assert "\x1b" not in text.getvalue()


class Clock(Callback):
    """Lets ten seconds pass in each step, and nothing else does."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr("callbacks.progress.time.monotonic", lambda: self.now)

    def on_train_batch_start(self, *args):
        self.now += 10


def test_the_time_left_is_the_stages_and_that_of_all(tiny_module, fit, monkeypatch):
    text = io.StringIO()
    console = Console(file=text, force_terminal=False)
    bar = StageProgress(seconds=0.0, console=console, later=360.0)
    fit(tiny_module(), Clock(monkeypatch), bar)
    first, *_, last = [s for s in text.getvalue().splitlines() if " left" in s]
    assert first.endswith("  0:00:30 left, 1:00:30 in all stages")
    assert last.endswith("  0:00:00 left, 1:00:00 in all stages")


class Sometimes(Callback):
    """Logs FID at the first validation only, and what has no unit at each."""

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log_dict({"val/lpips": 0.12, "val/tof": 1.5, "val/tlp": 0.01})
        if trainer.global_step == 2:
            pl_module.log("val/fid", 34.5)


def test_a_validation_shows_no_figure_of_the_one_before(tiny_module, fit):
    text = io.StringIO()
    bar = StageProgress(console=Console(file=text, force_terminal=False))
    fit(tiny_module(), Sometimes(), bar)
    two, four = [line for line in text.getvalue().splitlines() if "validation" in line]
    assert two.endswith("step 2  LPIPS 0.1200  FID 34.50  tOF 1.500 px  tLP 0.0100")
    assert four.endswith("step 4  LPIPS 0.1200  tOF 1.500 px  tLP 0.0100")


def test_a_terminal_gets_a_bar(tiny_module, fit):
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=150)
    fit(tiny_module(), StageProgress(console=console))
    assert "4/4" in text.getvalue()
    assert "━" in text.getvalue()
    assert "31.00 dB" in text.getvalue()


def test_other_ranks_are_silent(tiny_module, fit):
    text = io.StringIO()
    bar = StageProgress(seconds=0.0, console=Console(file=text))
    bar.disable()
    fit(tiny_module(), bar)
    assert text.getvalue() == ""
