import numpy as np
import pytest
import torch

from lightning_modules.losses import DISTORTIONS, distortion

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
    return torch.rand(2, 3, 3, 8, 10), torch.rand(2, 3, 3, 8, 10)


def test_distortions_are_the_documented_formulas(pair):
    yuv, rgb = planes(*pair)
    weighted = 3 * (6 * yuv[..., 0] + yuv[..., 1] + yuv[..., 2]) / 8
    logs = np.log(yuv)
    geometric = 3 * np.exp((10 * logs[..., 0] + logs[..., 1] + logs[..., 2]) / 12)
    expected = {
        "mse": rgb.mean(-1),
        "yuv": weighted,
        "yuv_rgb": 0.8 * weighted + 0.2 * rgb.sum(-1),
        "uf": 0.8 * geometric + 0.2 * rgb.sum(-1),
    }
    assert set(expected) == set(DISTORTIONS)
    for name, value in expected.items():
        found = distortion(name)(*pair)
        assert found.shape == (2, 3)
        np.testing.assert_allclose(found.numpy(), value, rtol=1e-4)


def test_a_perfect_frame_has_a_finite_gradient(pair):
    clip = pair[0]
    for name in DISTORTIONS:
        x_hat = clip.clone().requires_grad_()
        distortion(name)(clip, x_hat).sum().backward()
        assert x_hat.grad.isfinite().all()


def test_an_unknown_distortion_lists_the_known():
    with pytest.raises(ValueError, match="yuv_rgb"):
        distortion("psnr")
