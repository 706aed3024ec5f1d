"""Each command that loads a checkpoint refuses one that holds code, and leaves nothing.

The same for what is no checkpoint. How files differ is tested in ``test_saved_file``.
"""

import os
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from experiments import decode, encode
from experiments.anchor import command as anchor
from experiments.evaluate import command as evaluate
from experiments.fit import command as fit
from experiments.propagation import command as propagation
from experiments.stream import command as stream
from lightning_modules.bitstream import BitstreamWriter, StreamHeader
from lightning_modules.numerics import current

SOME = ["--sequences=clip", "--output=out/x.json"]
COMMANDS = {
    "encode": (encode.main, ["clip", "out/x", "--rate=21", "--checkpoint=FILE"]),
    "decode": (decode.main, ["x.lvc", "out/x", "--checkpoint=FILE"]),
    "evaluate": (evaluate.main, [*SOME, "--checkpoint=FILE"]),
    "anchor": (anchor.main, [*SOME, "--codec=compressai", "--checkpoint", "1=FILE"]),
    "propagation": (propagation.main, [*SOME[:1], "--output=out", "--checkpoint=FILE"]),
    "stream": (
        stream.main,
        ["clip", "--output=out/x.json", "--checkpoint=FILE", "--rate=21", "--lose=0:1"],
    ),
    "init_from": (fit.main, ["--runs_dir=out", "--init_from=FILE", "--logger=csv"]),
    "resume": (fit.main, ["--runs_dir=runs", "--run=run", "--logger=csv"]),
}


class Evil:
    def __reduce__(self):
        return os.system, ("touch harm",)


def hostile(path):
    torch.save({"state_dict": Evil()}, path)


def text(path):
    path.write_text("notes on my run")


FILES = {
    hostile: "holds Python objects (posix.system) besides tensors, and reading those",
    text: "is not a checkpoint: it begins with b'notes on'",
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", COMMANDS)
def test_it_is_refused_by_name_and_nothing_is_left(
    tmp_path, monkeypatch, make_video, capsys, name, kind
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip").symlink_to(make_video(2))
    (tmp_path / "out").mkdir()
    main, arguments = COMMANDS[name]
    file = "FILE"
    if name == "resume":
        (tmp_path / "runs/run/pairs_1").mkdir(parents=True)
        file = "runs/run/pairs_1/last.ckpt"
    with Path("x.lvc").open("wb") as stream_file:
        size, own = (64, 64), {"numerics": current()}
        header = StreamHeader("UI2C", bytes(8), *size, Fraction(25), 21.0, **own)
        BitstreamWriter(stream_file, header).close()
    kind(tmp_path / file)
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and file in line and FILES[kind] in line
    assert sorted(tmp_path.rglob("*")) == before
