"""Parts of the benchmark that train: steps beside a plain loop, memory by frames."""

import pytest
import torch

from experiments.profile.benchmark import memory, step
from experiments.profile.benchmark.figures import Settings
from experiments.profile.benchmark.rows import codec_configs


@pytest.fixture
def only_ui2c(monkeypatch):
    for part in (memory, step):
        monkeypatch.setattr(part, "codec_configs", lambda: iter(["ui2c"]))


def test_all_codecs_that_have_a_schedule_are_measured():
    found = set(codec_configs())
    assert {"ui2c", "dhvc", "video_vae", "dual_domain"} <= found
    assert not {"base", "rehearsal"} & found


def test_a_fit_and_a_plain_loop_take_turns(only_ui2c, monkeypatch, tmp_path):
    chosen = {"fit": step.VARIANTS["fit"]}
    monkeypatch.setattr(step, "VARIANTS", chosen)
    tiny = {"size": "tiny", "frames": 1, "crop": 32, "batch": 1, "turns": 1}
    monkeypatch.setitem(step.SHAPES, "small", tiny)
    loop, ratio = step.measure(Settings(scratch=tmp_path))
    assert loop.unit == "s/step" and loop.value > 0
    assert ratio.goal == "at most 1.05" and 0.2 < ratio.value < 20
    assert "1 clips of 1 frames, 32x32" in ratio.note


def test_a_turn_of_each_is_compared_with_its_neighbours():
    seconds = iter([0.0, 2.0, 10.0, 10.0, 12.0])
    turns = step.Turns(lambda trainer: lambda: None, 1, 1, lambda: next(seconds))
    trainer = type("Trainer", (), {"global_step": 0})()
    for trainer.global_step in range(turns.needed):
        turns.on_train_batch_start(trainer, None)
    assert (turns.own, turns.plain) == ([8.0], [2.0, 2.0])
    assert turns.ratio == 4.0


def test_bytes_count_while_something_holds_them():
    with memory.HeldBytes() as held:
        x = torch.zeros(1000)
        y = x + 1
        assert held.now == held.peak == 8000
        x.view(10, 100)
        del y
        assert (held.now, held.peak) == (4000, 8000)
        (x * 2).sum()
    assert held.peak == 8004


def test_a_step_without_values_holds_the_bytes_of_a_real_one(monkeypatch):
    module, stages = memory.started("ui2c", "tiny")
    row = {"frames": 3, "crop": 64, "precision": "32-true"}
    stage = memory.replace(stages[-1], **row, checkpoint_activations=False)
    module.start_stage(stage, 0, 1, 0)
    module.train()
    with memory.HeldBytes() as held:
        draw = memory._full_size(memory._draw(module, stage, 1), stage)
        held.now = held.peak = 0
        out = module.codec(draw.clip, draw.rate, **draw.conditions)
        module.loss(module.terms(draw, out)).backward()
    reckoned = memory.peak_of_step(module, stage, 1)
    weights = 4 * 4 * sum(p.numel() for p in module.codec.parameters())
    assert reckoned == pytest.approx(weights + held.peak, rel=0.02)


def test_recomputing_takes_the_memory_of_one_unit():
    module, stages = memory.started("ui2c", "tiny")
    peaks = {}
    for recompute in (False, True):
        for frames in (5, 7):
            stage = memory.replace(
                stages[-1],
                frames=frames,
                crop=64,
                precision="32-true",
                checkpoint_activations=recompute,
            )
            module.start_stage(stage, 0, 1, 0)
            peaks[recompute, frames] = memory.peak_of_step(module, stage, 1)
    kept = peaks[False, 7] - peaks[False, 5]
    recomputed = peaks[True, 7] - peaks[True, 5]
    assert recomputed < 0.2 * kept
