"""Training that diverges ends with an error, and what was good before is kept."""

import pytest
import torch

from lightning_modules import UI2C, load_codec


def error_of(capsys):
    found = [s for s in capsys.readouterr().err.splitlines() if s.startswith("error:")]
    assert len(found) == 1
    return found[0]


def test_a_learning_rate_that_is_far_too_large_is_no_success(
    two_stages, schedule, tmp_path, capsys
):
    schedule["stages"][1]["lr"] = 1e6
    run = tmp_path / "run"
    # The same command again comes to the same end.
    for _ in range(2):
        assert two_stages(tmp_path, "--run=run", stages=schedule["stages"]) == 1
        line = error_of(capsys)
        assert line.startswith("error: stage 'second': training has diverged: val/loss")
        first = run / "first"
        kept = f"{first / 'best.ckpt'} (step 2) and {first / 'last.ckpt'} (step 2)"
        assert f"kept from before: {kept}; start another --run" in line
        assert not list((run / "second").glob("*.ckpt"))
    load_codec(run / "first" / "last.ckpt")
    fork = ["--from_stage=second", f"--init_from={first / 'last.ckpt'}"]
    assert two_stages(tmp_path, "--run=other", *fork) == 0


def test_a_validation_that_is_no_number_keeps_the_stages_checkpoints(
    two_stages, tmp_path, monkeypatch, capsys
):
    original = UI2C.validation_step

    def validation_step(self, batch, batch_idx):
        results = original(self, batch, batch_idx)
        if self.run_step == 4:
            self._loss_sum[0] = torch.inf
        return results

    monkeypatch.setattr(UI2C, "validation_step", validation_step)
    often = ["--trainer.val_every_n_steps=1", "--trainer.save_every_n_steps=1"]
    assert two_stages(tmp_path, "--run=run", *often) == 1
    line = error_of(capsys)
    assert "val/loss is inf at step 2, and its weights were not saved" in line
    path = tmp_path / "run" / "second" / "last.ckpt"
    assert f"{path} (step 1)" in line
    assert torch.load(path, weights_only=True)["global_step"] == 1


@pytest.mark.parametrize("bad", [{2, 3, 4}, {2, 4}])
def test_a_stage_of_skipped_steps_alone_is_no_success(
    two_stages, tmp_path, monkeypatch, capsys, bad
):
    original = UI2C.terms

    def terms(self, draw, out):
        wrong = self.training and self.run_step in bad
        scale = float("nan") if wrong else 1.0
        return {name: term * scale for name, term in original(self, draw, out).items()}

    monkeypatch.setattr(UI2C, "terms", terms)
    command = tmp_path, "--run=run", "--trainer.save_every_n_steps=1"
    if len(bad) < 3:
        assert two_stages(*command) == 0
        return
    # A run that goes on does not take the stage for finished.
    for _ in range(2):
        assert two_stages(*command) == 1
        line = error_of(capsys)
        assert line.startswith("error: stage 'second': each of its 3 steps was skipped")
        assert f"{tmp_path / 'run' / 'second' / 'last.ckpt'} (step 2)" in line
