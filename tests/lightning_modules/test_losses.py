import numpy as np
import pytest
import torch

from lightning_modules.losses import TERMS, Losses, find_term, ms_ssim

KR, KB = 0.2126, 0.0722
MATRIX = np.array(
    [
        [KR, 1 - KR - KB, KB],
        [-KR / (2 - 2 * KB), -(1 - KR - KB) / (2 - 2 * KB), 0.5],
        [0.5, -(1 - KR - KB) / (2 - 2 * KR), -KB / (2 - 2 * KR)],
    ]
)


def planes(clip, x_hat):
    error = (clip - x_hat).double().numpy()
    yuv = np.einsum("ij,btjhw->btihw", MATRIX, error)
    return (yuv**2).mean((-2, -1)), (error**2).mean((-2, -1))


@pytest.fixture
def pair():
    clip = torch.rand(2, 3, 3, 46, 44)
    return clip, 0.7 * clip + 0.3 * torch.rand(2, 3, 3, 46, 44)


def similarities(x, y):
    """Return mean luminance x structure and mean structure over all 11x11 windows."""
    distance = np.arange(11) - 5
    window = np.exp(-(distance[:, None] ** 2 + distance**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(z):
        windows = np.lib.stride_tricks.sliding_window_view(z, (11, 11), (-2, -1))
        return (windows * window).sum((-2, -1))

    a, b = mean(x), mean(y)
    spread = mean(x * x) - a * a + mean(y * y) - b * b
    structure = (2 * (mean(x * y) - a * b) + 0.0009) / (spread + 0.0009)
    both = structure * (2 * a * b + 0.0001) / (a * a + b * b + 0.0001)
    return both.mean((-2, -1)), structure.mean((-2, -1))


def ms_ssim_of_three_scales(clip, x_hat):
    x, y = clip.double().numpy(), x_hat.double().numpy()
    weights = np.array([0.0448, 0.2856, 0.3001])
    score = 1.0
    for scale, weight in enumerate(weights / weights.sum()):
        score = score * similarities(x, y)[int(scale < 2)] ** weight
        height, width = (side // 2 for side in x.shape[-2:])
        x, y = (
            z[..., : 2 * height, : 2 * width]
            .reshape(*z.shape[:-2], height, 2, width, 2)
            .mean((-3, -1))
            for z in (x, y)
        )
    return 1 - score.mean(-1)


def test_distortions_are_the_documented_formulas(pair):
    yuv, rgb = planes(*pair)
    weighted = 3 * (6 * yuv[..., 0] + yuv[..., 1] + yuv[..., 2]) / 8
    logs = np.log(yuv)
    geometric = 3 * np.exp((10 * logs[..., 0] + logs[..., 1] + logs[..., 2]) / 12)
    expected = {
        "mse": rgb.mean(-1),
        "mse_255": rgb.mean(-1) * 65025,
        "sse": rgb.sum(-1) * pair[0].shape[-1] * pair[0].shape[-2],
        "yuv": weighted,
        "yuv_rgb": 0.8 * weighted + 0.2 * rgb.sum(-1),
        "uf": 0.8 * geometric + 0.2 * rgb.sum(-1),
        # Sides of 44 leave room for three scales.
        "ms_ssim": ms_ssim_of_three_scales(*pair),
    }
    assert set(expected) == {name for name in TERMS if not TERMS[name].needs}
    for name, value in expected.items():
        found = TERMS[name].function(*pair)
        assert found.shape == (2, 3)
        np.testing.assert_allclose(found.numpy(), value, rtol=1e-4)


def test_a_perfect_frame_has_a_finite_gradient(pair):
    clip = pair[0]
    losses = Losses("random")
    for name in TERMS:
        x_hat = clip.clone().requires_grad_()
        losses(name, clip, x_hat).sum().backward()
        assert x_hat.grad.isfinite().all()


def test_ms_ssim_is_float32_and_trains_where_structures_are_opposite(pair):
    x_hat = (1 - pair[0]).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ms_ssim(pair[0], x_hat)
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert x_hat.grad.isfinite().all()
    assert loss.min() > 0.9


def test_ms_ssim_of_less_than_one_window_is_refused():
    clip = torch.rand(1, 1, 3, 10, 64)
    with pytest.raises(ValueError, match="at least 11"):
        ms_ssim(clip, clip)


def test_an_unknown_distortion_lists_the_known():
    with pytest.raises(ValueError, match="yuv_rgb"):
        find_term("psnr")
