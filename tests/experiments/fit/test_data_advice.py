"""What a run that waited for its clips is told to do."""

import pytest

from datamodules.options import DataOptions
from experiments.fit.data_advice import cpus_of_a_device, data_advice


def advice(share, workers, cpus, source="folder"):
    return data_advice(share, DataOptions(source, "clips", workers=workers), cpus)


def test_a_run_that_hardly_waited_is_told_nothing():
    assert advice(0.0, 0, 16) == advice(0.09, 2, 16) == ""


@pytest.mark.parametrize(
    ("share", "workers", "cpus", "tried"),
    [
        (0.5, 0, 16, 1),  # Reading takes as long as the step.
        (0.8, 0, 16, 4),
        (0.8, 2, 16, 10),
        (0.8, 2, 8, 7),  # One CPU is left to training.
        (0.12, 4, 16, 5),
        (1.0, 2, 16, 3),
        (0.8, 2, 3, None),
        (0.8, 0, 1, None),
    ],
)
def test_loaders_are_as_many_as_needed_and_as_there_are_cpus_for(
    share, workers, cpus, tried
):
    line = advice(share, workers, cpus)
    assert line.startswith(f"data: training waited {share:.0%} of its time for clips (")
    assert "\n" not in line
    assert (f"try --data.workers {tried}, or `" in line) == (tried is not None)
    assert "experiments.prepare clips OUT` once, then --data.source prepared" in line
    assert line.endswith("--data.root OUT for the next run")


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({"source": "vimeo90k"}, "--source vimeo90k --threshold 0"),
        ({"source": "openvid"}, "--source openvid --stride 3"),
        ({"source": "openvid", "stride": 2}, "--source openvid"),
        (
            {"source": "openvid", "list_file": "a.csv", "stride": 1},
            "--source openvid --list_file a.csv",
        ),
    ],
)
def test_a_store_is_to_hold_what_the_run_reads(options, given):
    # Else the folder of Vimeo-90K would train on the test list too.
    line = data_advice(0.5, DataOptions(root="clips", **options), 16)
    assert f"experiments.prepare clips OUT {given}` once" in line


@pytest.mark.parametrize("source", ["synthetic", "stills"])
def test_clips_that_cannot_be_prepared_are_not_told_to_be(source):
    options = DataOptions(source=source, workers=1)
    assert data_advice(0.5, options, 16).endswith(": try --data.workers 2")
    assert data_advice(0.5, options, 2).endswith(": more CPUs a device would help")
    assert "(1 loader and 2 CPUs a device)" in data_advice(0.5, options, 2)


def test_processes_of_a_machine_share_its_cpus(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert cpus_of_a_device(4) == 4
    assert cpus_of_a_device(32) == 1
    # srun gives each process its own.
    monkeypatch.setattr("experiments.fit.data_advice.started_by", lambda: "srun")
    assert cpus_of_a_device(4) == 16
