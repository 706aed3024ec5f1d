"""Quality metrics against independent computations."""

import math
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure as reference_ms_ssim,
)

from callbacks.metrics import FrameMean, QualityMetrics
from callbacks.quality import (
    MS_SSIM_WEIGHTS,
    Lpips,
    UnavailableMetricError,
    lpips_file,
    ms_ssim,
    psnr,
    psnr_yuv,
)
from lightning_modules.base import ValidationResult


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    clip = torch.rand(2, 3, 3, 40, 48, generator=generator)
    noise = torch.randn(clip.shape, generator=generator)
    # Frames of very different quality, so that the order of averaging shows.
    strength = torch.tensor([0.001, 0.02, 0.2]).reshape(1, 3, 1, 1, 1)
    return (clip + strength * noise).clamp(0, 1), clip


def numpy_psnr(x, y):
    return 10 * math.log10(1 / np.mean((x - y) ** 2))


def test_psnr_is_the_mean_over_frames_and_not_of_the_mean_error(pair):
    x_hat, clip = (v.double().numpy() for v in pair)
    frames = [
        [numpy_psnr(a, b) for a, b in zip(x, y, strict=True)]
        for x, y in zip(x_hat, clip, strict=True)
    ]
    assert psnr(*pair).numpy() == pytest.approx(np.array(frames), abs=1e-3)
    assert abs(np.mean(frames) - numpy_psnr(x_hat, clip)) > 1


def test_psnr_yuv_weighs_the_planes_six_one_one(pair):
    planes = []
    for x in pair:
        r, g, b = np.moveaxis(x.double().numpy(), -3, 0)
        y = 0.2126 * r + 0.7152 * g + 0.0722 * b
        planes.append((y, (b - y) / 1.8556, (r - y) / 1.5748))
    y, u, v = (
        numpy_psnr(a[0, 1], b[0, 1]) for a, b in zip(planes[0], planes[1], strict=True)
    )
    assert psnr_yuv(*pair)[0, 1] == pytest.approx((6 * y + u + v) / 8, abs=1e-3)


def test_a_perfect_frame_has_a_finite_psnr_and_nan_stays_nan():
    clip = torch.rand(1, 3, 8, 8)
    assert psnr(clip, clip).item() == pytest.approx(99.9)
    assert psnr_yuv(clip, clip).item() == pytest.approx(99.9)
    assert psnr(clip * torch.nan, clip).isnan().all()


@pytest.mark.parametrize(("side", "scales"), [(100, 4), (176, 5)])
def test_ms_ssim_is_the_mean_of_the_planes_reference_values(side, scales):
    clip = torch.rand(10, 3, side, side + 30)
    x_hat = (clip + 0.1 * torch.randn_like(clip)).clamp(0, 1)
    planes = [
        reference_ms_ssim(
            x_hat[9:, i : i + 1],
            clip[9:, i : i + 1],
            data_range=1.0,
            betas=MS_SSIM_WEIGHTS[scales],
        ).item()
        for i in range(3)
    ]
    assert ms_ssim(x_hat, clip)[9] == pytest.approx(np.mean(planes), abs=1e-5)


def test_ms_ssim_needs_88_pixels():
    assert ms_ssim(torch.ones(1, 3, 88, 90), torch.ones(1, 3, 88, 90)).item() == 1
    with pytest.raises(UnavailableMetricError, match=r"at least 88x88.*have 90x87"):
        ms_ssim(torch.ones(1, 3, 87, 90), torch.ones(1, 3, 87, 90))


def test_missing_lpips_weights_are_named_with_their_place(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_download)
    with pytest.raises(UnavailableMetricError, match=str(file)):
        Lpips("alex")


def no_download(*args, **kwargs):
    raise AssertionError("a download was attempted")


def test_lpips_reads_a_file_that_lies_there(tmp_path, monkeypatch):
    torchvision = pytest.importorskip("torchvision")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = lpips_file("squeeze")
    file.parent.mkdir(parents=True)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), file)
    distance = Lpips("squeeze")
    clip = torch.rand(1, 2, 3, 40, 40)
    values = distance(torch.cat([clip[:, :1], 1 - clip[:, 1:]], dim=1), clip)
    assert values.shape == (1, 2)
    assert values[0, 0] == 0 < values[0, 1]
    assert not distance.network.training
    assert not any(p.requires_grad for p in distance.network.parameters())
    with pytest.raises(UnavailableMetricError, match="at least 32x32"):
        distance(clip[..., :31], clip[..., :31])


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"no metrics \['psn'\]"):
        QualityMetrics(["psn"])
    with pytest.raises(ValueError, match="no backbone 'resnet'"):
        QualityMetrics(["lpips"], "resnet")


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.codec = nn.Linear(1, 1)

    def validation_step(self, batch, batch_idx):
        clip = batch
        return [
            ValidationResult(
                "a", f"qp{q}", q, clip, clip * 0 + q / 64, clip[:, :, 0, 0, 0]
            )
            for q in (21, 42)
        ]

    test_step = validation_step


def evaluate(metrics, clips, run="validate"):
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[metrics],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    loader = torch.utils.data.DataLoader(clips, batch_size=None)
    getattr(trainer, run)(Module(), loader, verbose=False)
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize(("run", "split"), [("validate", "val"), ("test", "test")])
def test_validation_logs_means_per_point_and_over_points(run, split):
    # Clips of different lengths: a frame counts the same in any of them.
    clips = [torch.rand(1, t, 3, 8, 10) for t in (1, 5)]
    logged = evaluate(QualityMetrics(["psnr", "bpp"]), clips, run)
    frames = torch.cat([clip[0] for clip in clips])
    points = [psnr(frames * 0 + q / 64, frames).mean().item() for q in (21, 42)]
    bpp = frames[:, 0, 0, 0].mean().item() / 80
    assert logged == pytest.approx(
        {
            f"{split}/qp21/psnr": points[0],
            f"{split}/qp42/psnr": points[1],
            f"{split}/psnr": sum(points) / 2,
            f"{split}/qp21/bpp": bpp,
            f"{split}/qp42/bpp": bpp,
            f"{split}/bpp": bpp,
        },
        rel=1e-5,
    )


def test_what_cannot_be_measured_is_reported_once_and_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    metrics = QualityMetrics(["psnr", "ms_ssim", "lpips"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logged = evaluate(metrics, [torch.rand(1, 2, 3, 8, 8)] * 2)
    said = [str(w.message) for w in caught if "unavailable" in str(w.message)]
    assert len(said) == 2
    assert "alexnet-owt-7be5be79.pth" in said[0]
    assert "88x88" in said[1]
    assert set(metrics.unavailable) == {"ms_ssim", "lpips"}
    assert set(logged) == {"val/qp21/psnr", "val/qp42/psnr", "val/psnr"}


def test_metrics_are_reset_between_validations():
    metrics = QualityMetrics(["psnr"])
    dark, bright = torch.zeros(1, 1, 3, 8, 8), torch.ones(1, 1, 3, 8, 8)
    evaluate(metrics, [dark])
    again = evaluate(metrics, [bright])
    assert again == evaluate(QualityMetrics(["psnr"]), [bright])


def test_a_frame_mean_without_frames_adds_nothing():
    mean = FrameMean()
    mean.update(torch.empty(0))
    mean.update(torch.tensor([[1.0, 2.0], [4.0, 5.0]]))
    assert mean.compute() == 3
