"""Parts of the benchmark that train: steps beside a plain loop, memory by frames."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from experiments.profile.benchmark import memory, reckoned, step
from experiments.profile.benchmark.figures import Settings
from experiments.profile.benchmark.gpu_casts import GpuCasts
from experiments.profile.benchmark.held_bytes import HeldBytes
from experiments.profile.benchmark.reckoned import started
from experiments.profile.benchmark.rows import codec_configs
from lightning_modules.entropy.steps import step_positions
from lightning_modules.stages import Stage


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
    with HeldBytes() as held:
        x = torch.zeros(1000)
        y = x + 1
        assert held.now == held.peak == 8000
        x.view(10, 100)
        del y
        assert (held.now, held.peak) == (4000, 8000)
        (x * 2).sum()
    assert held.peak == 8004


@pytest.fixture(scope="module")
def tiny():
    return started("ui2c", "tiny")


def row_of(tiny, frames, *, recompute, precision="32-true"):
    row = {"frames": frames, "crop": 64, "precision": precision}
    return replace(tiny[1][-1], **row, checkpoint_activations=recompute)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_step_without_values_holds_the_bytes_of_a_real_one(recompute):
    module, stages = started("ui2c", "tiny")
    stage = row_of((module, stages), 3, recompute=recompute)
    module.start_stage(stage, 0, 1, 0)
    module.train()
    weights = list(module.codec.parameters())
    # Views of weights are no new bytes: what is recomputed takes some.
    with HeldBytes(known=weights) as held:
        draw = reckoned._full_size(reckoned._draw(module, stage, 1), stage)
        held.peak = held.now
        reckoned.train_once(module, draw)
    copies = (1 + reckoned.COPIES) * 4 * sum(p.numel() for p in weights)
    found = reckoned.peak_of_step(module, stage, 1)
    assert found == pytest.approx(copies + held.peak, rel=0.02)


def test_recomputing_takes_the_memory_of_one_unit_and_keeping_units_is_seen(
    tiny, monkeypatch
):
    def peak(frames):
        return reckoned.peak_of_step(tiny[0], row_of(tiny, frames, recompute=True), 1)

    two_units = peak(5)
    more = peak(7) - two_units
    # A step that holds on to what it computes in each unit.
    hoard, run = [], tiny[0].codec.network.code_latent

    def hoarding(y, *rest):
        hoard.append([y.clone() for _ in range(200)])
        return run(y, *rest)

    monkeypatch.setattr(tiny[0].codec.network, "code_latent", hoarding)
    assert peak(7) - two_units > 2 * more


def test_what_normalisations_read_is_float32_as_autocast_has_it_on_a_gpu():
    x = torch.ones(1, 4, dtype=torch.bfloat16)
    with GpuCasts():
        assert torch.nn.functional.layer_norm(x, (4,)).dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.nn.functional.layer_norm(x, (4,)).dtype == torch.float32
            assert (x + x).dtype == torch.bfloat16


def test_tensors_that_are_cached_in_a_step_without_values_have_values():
    step_positions.cache_clear()
    with FakeTensorMode():
        found = step_positions(2, 2, 3, 5, torch.device("cpu"))
    assert [len(each) for each in found] == [15, 15] and found[0][0] == 0


def test_a_row_counts_once_where_another_needs_more():
    short = Stage("short", 1, 3)
    long = replace(short, name="long", frames=7)
    kept = replace(long, name="kept", checkpoint_activations=True)
    assert memory.heaviest([short, long, kept]) == [long, kept]
    assert memory.heaviest([long, replace(long, name="again")])[0].name == "again"
