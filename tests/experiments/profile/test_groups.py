"""What profile says of groups of pictures at once: seconds, and exactness."""

import json
from pathlib import Path

import pytest

from experiments.profile.command import main
from experiments.profile.groups import measure_groups
from lightning_modules.video_vae import codec as codec_module
from lightning_modules.video_vae.side_by_side import side_by_side

CONFIGS = Path(__file__).parents[3] / "experiments" / "configs"
VIDEO_VAE = ("video_vae.yaml", "ablations/video_vae/lean_vae.yaml", "rehearsal.yaml")


def profile(output, *more, configs=VIDEO_VAE):
    arguments = [f"--config={CONFIGS / name}" for name in configs]
    arguments += ["--height=40", "--width=64", "--device=cpu", "--repeats=1"]
    return main([*arguments, f"--output={output}", *more])


def test_profile_measures_groups_at_once(tmp_path, capsys):
    output = tmp_path / "profile.json"
    assert profile(output, "--gop_batch=2") == 0
    figures = json.loads(output.read_text())["groups"]
    assert (figures["groups"], figures["frames"]) == (2, 17)
    for name in ("encode", "decode"):
        own = figures[name]
        seconds = own["seconds_per_frame"]
        assert min(seconds.values()) > 0
        assert own["gain_side_by_side"] == pytest.approx(
            seconds["one"] / seconds["side_by_side"] - 1
        )
        assert 0 <= own["largest_difference_of_the_batch"] < 1e-3
    assert "2 groups of pictures at once, 17 frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("configs", "groups", "said"),
    [
        (("ui2c.yaml", "rehearsal.yaml"), 2, "no groups of pictures"),
        (VIDEO_VAE, 1, "at least 2"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path, capsys, configs, groups, said):
    output = tmp_path / "profile.json"
    assert profile(output, f"--gop_batch={groups}", configs=configs) == 2
    assert said in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(("job", "part"), [(0, "encode"), (1, "decode")])
def test_groups_that_give_other_bits_or_frames_are_not_reported(
    lively_module, monkeypatch, job, part
):
    codec = lively_module("VideoVAE", backbone="lean_vae", lpips="random").codec.eval()

    def off(jobs, device):
        results = side_by_side(jobs, device)
        is_frames = results[0].ndim == 4
        # As a kernel that rounds otherwise where there are several.
        return [r + 0.5 * (len(jobs) > 1 and is_frames == job) for r in results]

    monkeypatch.setattr(codec_module, "side_by_side", off)
    with pytest.raises(ValueError, match=f"gives: {part} is not exact on this device"):
        measure_groups(codec, 2, 40, 64, 1)
