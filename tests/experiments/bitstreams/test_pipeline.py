"""encode and decode work on several frames at once, and not one bit changes."""

import threading

import pytest
import torch

from experiments import decode, encode
from lightning_modules.dhvc import workers
from stream_samples import make_checkpoints, make_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    make_checkpoints(folder, "dhvc", "auxiliary", "ui2c")
    make_video(folder)
    return folder


@pytest.fixture
def seen(monkeypatch):
    """The names of the workers' threads that were given a frame."""
    names = set()
    code = workers.Workers._code

    def watched(self, frame, device):
        names.add(threading.current_thread().name)
        code(self, frame, device)

    monkeypatch.setattr(workers.Workers, "_code", watched)
    return names


LMBDA = 1024.0


@pytest.fixture
def codec(lively_module):
    return lively_module("DHVC", auxiliary=False).codec.eval()


@pytest.fixture
def frames(scene):
    return scene(7, 50, 70)


def run_encode(folder, output, checkpoint, *options):
    arguments = [str(folder / "clip"), str(folder / output), f"--rate={LMBDA}"]
    arguments += ["--checkpoint", str(folder / f"{checkpoint}.ckpt"), "--device=cpu"]
    return encode.main([*arguments, *options])


def hash_of(folder, stream, capsys, *options):
    arguments = [str(folder / stream), "--hash", "--device=cpu", *options]
    arguments += ["--checkpoint", str(folder / "dhvc.ckpt")]
    assert decode.main(arguments) == 0
    return capsys.readouterr().out.split()[-1]


def test_the_file_and_its_frames_are_those_of_one_worker(folder, seen, capsys):
    assert run_encode(folder, "one.lvc", "dhvc") == 0
    alone = hash_of(folder, "one.lvc", capsys)
    assert seen == set()
    assert run_encode(folder, "two.lvc", "dhvc", "--pipeline=2", "--verify") == 0
    assert "verified" in capsys.readouterr().out
    assert seen == {"pipeline worker 0", "pipeline worker 1"}
    assert (folder / "two.lvc").read_bytes() == (folder / "one.lvc").read_bytes()
    assert hash_of(folder, "one.lvc", capsys, "--pipeline=3") == alone
    assert "pipeline worker 2" in seen
    first = hash_of(folder, "one.lvc", capsys, "--pipeline=3", "--scales=1")
    assert first == hash_of(folder, "one.lvc", capsys, "--scales=1") != alone


@pytest.mark.parametrize(
    ("checkpoint", "workers", "message"),
    [
        ("ui2c", 2, "UI2CCodec cannot set pipeline"),
        ("auxiliary", 2, "use a model without it (auxiliary: false)"),
        ("dhvc", 0, "pipeline is 0"),
    ],
)
def test_what_cannot_overlap_is_refused(folder, capsys, checkpoint, workers, message):
    option = f"--pipeline={workers}"
    assert run_encode(folder, "no.lvc", checkpoint, option, "--rate=32") == 2
    assert message in capsys.readouterr().err
    assert not (folder / "no.lvc").exists()


def test_a_codec_goes_back_to_one_worker(codec, frames, seen):
    packets = list(codec.compress(frames, LMBDA))
    shown = torch.stack(list(codec.decompress(packets, 50, 70)))
    codec.configure(pipeline=2)
    with pytest.raises(ValueError, match="cannot set gop_batch"):
        codec.configure(pipeline=1, gop_batch=2)
    assert list(codec.compress(frames, LMBDA)) == packets
    assert torch.equal(torch.stack(list(codec.decompress(packets, 50, 70))), shown)
    assert len(seen) == 2
    seen.clear()
    codec.configure(pipeline=1)
    assert list(codec.compress(frames, LMBDA)) == packets
    assert seen == set()


def test_frames_may_have_lambdas_of_their_own(codec, frames):
    def rate_at(number):
        return (512.0, 1024.0, 2048.0)[number % 3]

    alone = list(codec.compress(frames, LMBDA, rate_at=rate_at))
    assert alone != list(codec.compress(frames, LMBDA))
    codec.configure(pipeline=3)
    assert list(codec.compress(frames, LMBDA, rate_at=rate_at)) == alone
