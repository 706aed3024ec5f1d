"""encode and decode work on several frames at once, and not one bit changes."""

import threading

import pytest
import torch

from experiments import decode, encode
from lightning_modules.dhvc import workers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pipeline")


@pytest.fixture
def run_encode(checkpoint, make_video, folder):
    def run(output, name, *options):
        arguments = [str(make_video(11)), str(folder / output), f"--rate={LMBDA}"]
        arguments += ["--checkpoint", str(checkpoint(name)), "--device=cpu"]
        return encode.main([*arguments, *options])

    return run


@pytest.fixture
def hash_of(checkpoint, folder, capsys):
    def run(stream, *options):
        arguments = [str(folder / stream), "--hash", "--device=cpu", *options]
        assert decode.main([*arguments, "--checkpoint", str(checkpoint("dhvc"))]) == 0
        return capsys.readouterr().out.split()[-1]

    return run


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


def test_the_file_and_its_frames_are_those_of_one_worker(
    run_encode, hash_of, folder, seen, capsys
):
    assert run_encode("one.lvc", "dhvc") == 0
    alone = hash_of("one.lvc")
    assert seen == set()
    assert run_encode("two.lvc", "dhvc", "--pipeline=2", "--verify") == 0
    assert "verified" in capsys.readouterr().out
    assert seen == {"pipeline worker 0", "pipeline worker 1"}
    assert (folder / "two.lvc").read_bytes() == (folder / "one.lvc").read_bytes()
    assert hash_of("one.lvc", "--pipeline=3") == alone
    assert "pipeline worker 2" in seen
    first = hash_of("one.lvc", "--pipeline=3", "--scales=1")
    assert first == hash_of("one.lvc", "--scales=1") != alone


@pytest.mark.parametrize(
    ("name", "workers", "message"),
    [
        ("ui2c", 2, "UI2C cannot set pipeline"),
        ("auxiliary", 2, "use a model without it (auxiliary: false)"),
        ("dhvc", 0, "pipeline is 0"),
    ],
)
def test_what_cannot_overlap_is_refused(
    run_encode, folder, capsys, name, workers, message
):
    option = f"--pipeline={workers}"
    assert run_encode("no.lvc", name, option, "--rate=32") == 2
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
