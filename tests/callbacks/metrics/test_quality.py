"""Quality metrics against independent computations."""

import math
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from pytorch_msssim import ms_ssim as reference_ms_ssim
from torch import nn

from callbacks.metrics.quality import ms_ssim, ms_ssim_planes, psnr_yuv
from callbacks.quality_metrics import QualityMetrics
from lightning_modules import lpips_network
from lightning_modules.base import ValidationResult
from lightning_modules.perceptual import Lpips, UnavailableMetricError, lpips_file
from lightning_modules.psnr import MAX_PSNR, psnr, psnr_8_bit


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


def test_psnr_of_pictures_is_that_of_eight_bits():
    black = torch.zeros(3, 4, 4)
    assert psnr_8_bit(black, black + 0.4 / 255) == MAX_PSNR
    assert psnr_8_bit(black, black + 0.6 / 255) == pytest.approx(48.1308, abs=1e-4)


def textbook_ms_ssim(x, y):
    """Wang's formula on two planes (H, W), with the window's 121 weights."""
    weights = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
    if min(x.shape) < 176:
        weights = [0.0517, 0.3295, 0.3462, 0.2726]
    tap = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(tap, tap) / np.outer(tap, tap).sum()

    def local_mean(plane):
        views = np.lib.stride_tricks.sliding_window_view(plane, (11, 11))
        return np.einsum("ijkl,kl->ij", views, window)

    score = 1.0
    for scale, weight in enumerate(weights):
        mu_x, mu_y = local_mean(x), local_mean(y)
        variances = local_mean(x * x) - mu_x**2 + local_mean(y * y) - mu_y**2
        covariance = local_mean(x * y) - mu_x * mu_y
        term = (2 * covariance + 0.03**2) / (variances + 0.03**2)
        if scale == len(weights) - 1:
            term *= (2 * mu_x * mu_y + 0.01**2) / (mu_x**2 + mu_y**2 + 0.01**2)
        score *= max(term.mean(), 0) ** weight
        odd = [(0, side % 2) for side in x.shape]
        x, y = (np.pad(v, odd, mode="edge") for v in (x, y))
        x, y = ((v[::2] + v[1::2]) / 2 for v in (x, y))
        x, y = ((v[:, ::2] + v[:, 1::2]) / 2 for v in (x, y))
    return score


@pytest.mark.parametrize("size", [(101, 175), (176, 203)])
def test_ms_ssim_is_the_textbooks_on_odd_sizes_too(size, monkeypatch):
    # Two planes at a time: groups are cut and joined again.
    monkeypatch.setattr(
        "lightning_modules.perceptual.PIXELS_AT_ONCE", 2 * size[0] * size[1]
    )
    clip = torch.rand(1, 2, 3, *size)
    noise = torch.tensor([0.3, 0.001]).reshape(1, 2, 1, 1, 1)
    x_hat = (0.9 * clip + noise * torch.randn_like(clip)).clamp(0, 1)
    x_hat[0, 0, 2] = 1 - clip[0, 0, 2]
    x, y = (v.double().numpy().reshape(6, *size) for v in (x_hat, clip))
    planes = np.array([textbook_ms_ssim(*both) for both in zip(x, y, strict=True)])
    assert planes[2] == 0 and planes[3] > 0.98
    ours = ms_ssim_planes(x_hat, clip)
    assert ours.flatten().numpy() == pytest.approx(planes, abs=1e-6)
    assert ms_ssim(x_hat, clip)[0, 1] == pytest.approx(planes[3:].mean(), abs=1e-6)


def test_ms_ssim_is_pytorch_msssims_where_no_scale_is_odd():
    clip = torch.rand(2, 3, 176, 208)
    x_hat = (clip + 0.1 * torch.randn_like(clip)).clamp(0, 1)
    theirs = reference_ms_ssim(x_hat, clip, data_range=1.0, size_average=False)
    assert ms_ssim(x_hat, clip).numpy() == pytest.approx(theirs.numpy(), abs=1e-6)


def test_what_ms_ssim_lacks_to_one_keeps_its_digits():
    clip = torch.rand(1, 1, 100, 100) * 0.2 + 0.7
    x_hat = clip + 2e-5 * torch.randn_like(clip)
    missing = 1 - textbook_ms_ssim(*(v[0, 0].double().numpy() for v in (x_hat, clip)))
    ours = 1 - ms_ssim_planes(x_hat, clip).item()
    assert 0 < missing < 1e-6
    assert ours == pytest.approx(missing, rel=0.01)


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


@pytest.mark.filterwarnings("ignore::UserWarning:torchvision")
@pytest.mark.parametrize(
    ("net", "maker"),
    [("alex", "alexnet"), ("squeeze", "squeezenet1_1"), ("vgg", "vgg16")],
)
def test_lpips_is_the_librarys_to_the_last_bit(tmp_path, monkeypatch, net, maker):
    torchvision = pytest.importorskip("torchvision")
    library = pytest.importorskip("lpips")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = lpips_file(net)
    file.parent.mkdir(parents=True)
    # Its classifier is not looked at, so it need not be drawn.
    monkeypatch.setattr(torch.nn.Linear, "reset_parameters", lambda layer: None)
    weights = getattr(torchvision.models, maker)(weights=None).state_dict()
    no_classifier = {k: v for k, v in weights.items() if k.startswith("features")}
    torch.save(no_classifier, file)
    theirs = library.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
    loaded = theirs.net.load_state_dict(
        {
            f"slice{number}.{name}": weights[f"features.{name}"]
            for number in range(1, 8)
            for name in dict(getattr(theirs.net, f"slice{number}", BARE).state_dict())
        }
    )
    assert not loaded.missing_keys
    x, y = torch.rand(2, 2, 3, 40, 50)
    layers = [
        [
            map_ / (map_.square().sum(1, keepdim=True).clamp_min(1e-20).sqrt() + 1e-10)
            for map_ in theirs.net(theirs.scaling_layer(frames * 2 - 1))
        ]
        for frames in (x, y)
    ]
    expected = sum(
        head((a - b).square()).mean(dim=(1, 2, 3))
        for head, a, b in zip(theirs.lins, *layers, strict=True)
    )
    assert torch.equal(Lpips(net)(x, y), expected)
    assert expected.tolist() == pytest.approx(
        theirs(x * 2 - 1, y * 2 - 1).flatten().tolist(), rel=1e-5
    )


BARE = torch.nn.Module()


def test_lpips_looks_at_the_file_that_lies_there(random_weights, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(random_weights))
    distance = Lpips("squeeze")
    clip = torch.rand(1, 2, 3, 40, 40)
    negative = torch.cat([clip[:, :1], 1 - clip[:, 1:]], dim=1)
    values = distance(negative, clip)
    assert values.shape == (1, 2)
    assert values[0, 0] == 0 < values[0, 1]
    with pytest.raises(UnavailableMetricError, match="at least 32x32"):
        distance(clip[..., :31], clip[..., :31])
    # Another file in another place, in the same process.
    file = lpips_file("squeeze")
    other = torch.load(file, weights_only=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    lpips_file("squeeze").parent.mkdir(parents=True)
    torch.save({k: v + 0.01 for k, v in other.items()}, lpips_file("squeeze"))
    assert not torch.equal(Lpips("squeeze")(negative, clip), values)
    assert torch.equal(distance(negative, clip), values)
    del other["features.0.bias"]
    torch.save(other, lpips_file("squeeze"))
    with pytest.raises(ValueError, match=r"squeezenet1_1.*weights of lpips squeeze"):
        Lpips("squeeze")


def test_a_network_that_was_loaded_without_gradients_still_passes_them_on():
    lpips_network.load_network.cache_clear()
    with torch.inference_mode():
        Lpips("random")
    frames = torch.rand(1, 3, 32, 32, requires_grad=True)
    Lpips("random")(frames, torch.rand(1, 3, 32, 32)).sum().backward()
    assert frames.grad.any()


def test_without_the_package_of_its_heads_lpips_says_what_to_install(monkeypatch):
    monkeypatch.setattr(lpips_network.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnavailableMetricError, match="pip install lpips"):
        Lpips("random")


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"no metrics \['psn'\]"):
        QualityMetrics(["psn"])
    with pytest.raises(ValueError, match="no backbone 'resnet'"):
        Lpips("resnet")


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
