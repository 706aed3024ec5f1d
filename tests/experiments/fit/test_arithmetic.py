"""What a run computes in: chosen once, said, kept, and given back to the process."""

import re

import pytest
import torch
import yaml
from jsonargparse import Namespace

from experiments.fit import arithmetic
from experiments.fit.arithmetic import Machine, OneArithmetic, settle
from experiments.fit.options import TrainerOptions
from lightning_modules.base import CodecModule
from lightning_modules.float32 import restored
from lightning_modules.stages import Stage

GPU = Machine("NVIDIA H200", "bf16-mixed", "high")
AUTO = "--trainer.precision=auto"


@pytest.fixture(autouse=True)
def _restored():
    with restored():
        yield


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Have runs believe that this machine has one; they compute on its processor."""

    def begin():
        monkeypatch.setattr(Machine, "of", lambda options: GPU)

    begin()
    return monkeypatch


def settled(begun=None, rows=(None,), **trainer):
    stages = [Stage(f"row{i}", 1, 1, precision=name) for i, name in enumerate(rows)]
    config = Namespace(trainer=TrainerOptions(**trainer), stages=stages)
    options = {
        "trainer": vars(config.trainer).copy(),
        "stages": [{"name": s.name, "precision": s.precision} for s in stages],
    }
    said = settle(options, config, begun)
    own = [stage.precision for stage in config.stages]
    assert own == [row["precision"] for row in options["stages"]]
    names = ("precision", "matmul_precision")
    found = tuple(options["trainer"][name] for name in names)
    assert found == tuple(getattr(config.trainer, name) for name in names)
    return found, own, said


def test_a_new_run_takes_what_its_machine_is_good_at(on_a_gpu):
    found, rows, said = settled(precision="auto", rows=(None, "32-true", "auto"))
    assert found == ("bf16-mixed", "high")
    assert rows == [None, "32-true", "bf16-mixed"]
    assert said == (
        "computes in bf16-mixed (row0, row2) and 32-true (row1), matmul_precision "
        "high (TF32), on NVIDIA H200"
    )


def test_what_is_given_stays_as_given(on_a_gpu):
    given = {"precision": "16-mixed", "matmul_precision": "medium"}
    assert settled(**given)[0] == ("16-mixed", "medium")
    assert settled(matmul_precision=None)[0] == ("32-true", None)


def test_a_run_goes_on_in_what_it_began_in():
    begun = {
        "trainer": {"precision": "bf16-mixed", "matmul_precision": "high"},
        "stages": [{"name": "row0", "precision": "32-true"}],
    }
    found, rows, said = settled(begun, precision="auto", rows=("auto", "auto"))
    assert (found, rows) == (("bf16-mixed", "high"), ["32-true", "bf16-mixed"])
    assert said.endswith(
        "on CPU, as the run began: one begun here would take 32-true and highest"
    )


def test_what_is_given_is_not_called_another_choice_than_the_machines(on_a_gpu):
    both = {"precision": "32-true", "matmul_precision": "highest"}
    begun = {"trainer": both, "stages": []}
    assert settled(begun, **both)[2].endswith("highest, on NVIDIA H200")
    said = settled(begun, **both | {"precision": "auto"})[2]
    assert said.endswith("begun here would take bf16-mixed and highest")
    # Of a row that alone was left to the machine.
    said = settled(begun, **both, rows=("auto", None))[2]
    assert said.endswith("take bf16-mixed (row0) and 32-true (row1) and highest")


def test_a_run_from_before_goes_on_as_torch_had_it(on_a_gpu):
    begun = {"trainer": {"precision": "32-true"}, "stages": []}
    found, _, said = settled(begun, precision="auto")
    assert found == ("32-true", None)
    assert "matmul_precision as torch begins, on NVIDIA H200, as the run" in said


@pytest.mark.parametrize(
    ("capabilities", "hip", "expected"),
    [
        ([], None, ("CPU", "32-true", "highest")),
        ([(9, 0)], None, ("GPU0", "bf16-mixed", "high")),
        ([(7, 5)], None, ("GPU0", "32-true", "highest")),
        ([(8, 0), (7, 0)], None, ("GPU0 and GPU1", "32-true", "highest")),
        ([(9, 4)], "6.2", ("GPU0", "bf16-mixed", "highest")),
    ],
)
def test_a_machine_is_as_good_as_its_oldest_gpu(
    monkeypatch, capabilities, hip, expected
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu: f"GPU{gpu}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert Machine.of(TrainerOptions()) == Machine(*expected)
    cpu = TrainerOptions(accelerator="cpu")
    assert Machine.of(cpu) == Machine("CPU", "32-true", "highest")


def test_kernels_by_timing_and_the_same_kernels_exclude_each_other():
    with pytest.raises(ValueError, match=r"trainer: benchmark .* deterministic"):
        TrainerOptions(benchmark=True, deterministic=True)


def test_ranks_that_chose_apart_are_told(monkeypatch):
    guard = OneArithmetic(TrainerOptions(matmul_precision="high"), "bf16-mixed")
    guard.setup(None, None, "fit")
    assert torch.get_float32_matmul_precision() == "high"
    other = ("32-true", "highest")
    monkeypatch.setattr(arithmetic, "gather", lambda own: [own, other])
    with pytest.raises(ValueError, match=r"apart .*'32-true', 'highest'\) from rank 1"):
        guard.setup(None, None, "fit")


def test_a_run_stores_and_says_it_and_the_process_gets_its_own_back(
    two_stages, tmp_path, capsys, on_a_gpu
):
    seen = set()
    step = CodecModule.training_step

    def noting(self, batch, index):
        backends = torch.backends
        allowed = backends.cudnn.allow_tf32, backends.cudnn.benchmark
        autocast = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")
        seen.add((torch.get_float32_matmul_precision(), *allowed, *autocast))
        return step(self, batch, index)

    on_a_gpu.setattr(CodecModule, "training_step", noting)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    assert before == ("highest", False)
    begin = (AUTO, "--run=r", "--trainer.benchmark=true", "--to_stage=first")
    assert two_stages(tmp_path, *begin) == 0
    assert seen == {("high", True, True, torch.bfloat16, True)}
    now = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    assert now == before
    said = "computes in bf16-mixed, matmul_precision high (TF32), on NVIDIA H200\n"
    assert said in capsys.readouterr().out
    config = tmp_path / "r" / "config.yaml"
    stored = yaml.safe_load(config.read_text())["trainer"]
    assert (stored["precision"], stored["matmul_precision"]) == ("bf16-mixed", "high")
    on_a_gpu.undo()

    # On another machine.
    on = (AUTO, "--run=r", "--trainer.benchmark=true")
    assert two_stages(tmp_path, *on[1:], "--trainer.precision=32-true") == 2
    assert "precision: 'bf16-mixed' -> '32-true'" in capsys.readouterr().err
    assert two_stages(tmp_path, *on) == 0
    assert "bf16-mixed, matmul_precision high (TF32), on CPU, as the run began" in (
        capsys.readouterr().out
    )
    assert yaml.safe_load(config.read_text())["trainer"] == stored


def test_a_run_from_before_there_was_a_choice_goes_on(two_stages, tmp_path, capsys):
    assert two_stages(tmp_path, "--run=r", "--to_stage=first") == 0
    config = tmp_path / "r" / "config.yaml"
    written = config.read_text()
    before = re.sub(r"\n  (matmul_precision|benchmark): \w+", "", written)
    assert len(before.splitlines()) == len(written.splitlines()) - 2
    config.write_text(before)
    # Of a row that names its precision now, and had the trainer's then.
    row = "--stages.second.precision=32-true"
    assert two_stages(tmp_path, AUTO, "--run=r", row) == 0
    assert "computes in 32-true, matmul_precision as torch" in capsys.readouterr().out
    config.write_text(before)
    assert two_stages(tmp_path, "--run=r", "--trainer.matmul_precision=high") == 2
    assert "matmul_precision: None -> 'high'" in capsys.readouterr().err


@pytest.mark.gpu
def test_a_gpu_trains_in_half_precision_and_goes_on(two_stages, tmp_path, capsys):
    gpu = (AUTO, "--run=r", "--trainer.accelerator=gpu", "--trainer.devices=1")
    assert two_stages(tmp_path, *gpu, "--to_stage=first") == 0
    machine = Machine.of(TrainerOptions())
    assert f"computes in {machine.precision}, " in capsys.readouterr().out
    last = tmp_path / "r" / "first" / "last.ckpt"
    (state,) = torch.load(last, weights_only=True)["optimizer_states"]
    assert all(group["fused"] for group in state["param_groups"])
    assert two_stages(tmp_path, *gpu) == 0
