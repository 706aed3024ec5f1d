"""A schedule of two short stages, and what a test runs it with."""

import yaml

from experiments.fit.command import main

TINY = [
    "--shrink.total_steps=11",
    "--shrink.min_steps=1",
    "--shrink.frames=3",
    "--shrink.crop=32",
    "--shrink.batch_size=2",
    "--data.workers=0",
    "--data.val_clips=1",
    "--data.val_frames=2",
    "--data.val_crop=64",
    "--trainer.threads=1",
    "--trainer.accelerator=cpu",
    "--logger=csv",
    "--tracking.metrics=[psnr,bpp]",
    "--tracking.strips_every_n_validations=0",
]

SCHEDULE = {
    "model": {"class_path": "UI2C", "init_args": {"size": "tiny"}},
    "stages": [
        {"name": "first", "steps": 2, "frames": 3, "crop": 32, "batch_size": 2},
        {"name": "second", "steps": 3, "frames": 5, "crop": 32, "batch_size": 2},
    ],
    "trainer": {"log_every_n_steps": 1, "val_every_n_steps": 100},
}


def two_stages(folder, *options, **changes):
    """Run a schedule of two short stages."""
    folder.mkdir(exist_ok=True)
    config = folder / "schedule.yaml"
    config.write_text(yaml.safe_dump({**SCHEDULE, **changes}))
    others = [option for option in TINY if not option.startswith("--shrink")]
    return main([f"--config={config}", f"--runs_dir={folder}", *others, *options])


def one_line(capsys):
    (line,) = capsys.readouterr().err.splitlines()
    return line
