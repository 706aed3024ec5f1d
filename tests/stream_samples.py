"""Checkpoints and a video to stream, and the command's results."""

import json
from fractions import Fraction
from itertools import count

import torch

import lightning_modules
from datamodules.writing import create_video
from experiments.stream import command as stream

FRAMES = 11

MODULES = {
    "dhvc": ("DHVC", {"auxiliary": False}),
    "auxiliary": ("DHVC", {"auxiliary": True}),
    "ui2c": ("UI2C", {}),
    "video_vae": (
        "VideoVAE",
        {"backbone": "lean_vae", "frames_per_unit": 5, "lpips": "random"},
    ),
}


def make_lively(codec):
    """Stretch the latents of random weights, so that there is something to code."""
    for name, parameter in codec.named_parameters():
        if name.endswith(("encoder_down.weight", "encoder.1.weight")):
            parameter.data *= 4.0
        if name.endswith("posterior.1.weight"):
            parameter.data *= 10.0


def make_checkpoints(folder, *names):
    paths = {}
    for name in names:
        codec, arguments = MODULES[name]
        torch.manual_seed(1)
        module = getattr(lightning_modules, codec)(size="tiny", **arguments)
        make_lively(module.codec)
        checkpoint = {"state_dict": module.state_dict(), "global_step": 0}
        module.on_save_checkpoint(checkpoint)
        paths[name] = folder / f"{name}.ckpt"
        torch.save(checkpoint, paths[name])
    return paths


def make_video(folder):
    path = folder / "clip"
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 3, 8, 14, generator=generator)
    wide = torch.nn.functional.interpolate(coarse, (64, 112), mode="bilinear")[0]
    with create_video(path, 64, 64, Fraction(25)) as append:
        for number in range(FRAMES):
            append(wide[:, :, 4 * number : 4 * number + 64])
    return path


def make_run(checkpoints, video, out):
    """Return what runs the command and gives the runs of its JSON file by label."""
    folders = (out / str(number) for number in count())

    def run(*arguments, codec="dhvc", rate=1024):
        command = [video, "--checkpoint", checkpoints[codec], "--rate", rate]
        command += ["--output", folder := next(folders), *arguments]
        assert stream.main(list(map(str, command))) == 0
        found = json.loads((folder / "stream.json").read_text())
        return {(each["label"], each["seed"]): each for each in found["runs"]}

    return run


def column(run, name):
    return [frame[name] for frame in run["frames"]]
