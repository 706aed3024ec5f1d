"""FID, KID and BRISQUE against independent computations."""

import math
import sys
import types

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from callbacks.metrics import brisque as brisque_module
from callbacks.metrics.brisque import brisque, brisque_file, check_brisque
from callbacks.metrics.distribution import (
    SAMPLES,
    Inception,
    Moments,
    Samples,
    check_inception,
    frechet_distance,
    inception_file,
    kernel_distance,
    patches,
    to_8_bit,
)
from callbacks.metrics.table import METRICS
from lightning_modules.perceptual import UnavailableMetricError

SIZE = 12


class Toy(nn.Module):
    """Twelve features of a picture: means of its quarters, by channel."""

    num_features = SIZE

    def forward(self, pictures):
        quarters = nn.functional.adaptive_avg_pool2d(pictures.float() / 255, 2)
        return quarters.flatten(1)


def pictures(count, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    scene = rng.normal(120 + 30 * shift, 40, (count, 3, 1, 1))
    noise = rng.normal(0, 50 + 20 * shift, (count, 3, 8, 8))
    return torch.from_numpy((scene + noise).clip(0, 255).astype(np.uint8))


def features(count, seed, shift=0.0):
    return Toy()(pictures(count, seed, shift)).numpy()


def textbook_fid(x, y):
    """Fréchet distance of two clouds, by SciPy's matrix root."""
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(a @ b).real
    return np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(a + b - 2 * root)


def fid(x, y):
    return frechet_distance(Samples([x]), Samples([y]))


def kid(x, y, *subset_size):
    return kernel_distance(Samples([x]), Samples([y]), *subset_size)


def test_fid_is_the_textbooks_and_the_librarys():
    x, y = features(300, 1), features(200, 2, shift=1)
    theirs = FrechetInceptionDistance(feature=Toy())
    theirs.update(pictures(300, 1), real=True)
    theirs.update(pictures(200, 2, shift=1), real=False)
    expected = textbook_fid(x.astype(float), y.astype(float))
    assert expected > 0.01
    assert fid(x, y) == pytest.approx(expected, rel=1e-6)
    assert fid(x, y) == pytest.approx(theirs.compute().item(), rel=1e-4)
    assert fid(x, x) == pytest.approx(0, abs=1e-7)


def test_fid_of_fewer_samples_than_features_is_a_number():
    x, y = features(5, 1), features(4, 2)
    # A root of a product without rank has no digits to spare.
    expected = textbook_fid(x.astype(float), y.astype(float))
    assert fid(x, y) == pytest.approx(expected, rel=1e-4)


def test_fid_needs_two_samples():
    with pytest.raises(UnavailableMetricError, match="at least 2 samples, there is 1"):
        fid(features(1, 1), features(9, 2))


def test_sums_do_not_depend_on_how_samples_are_split(monkeypatch):
    monkeypatch.setattr("callbacks.metrics.distribution.ROWS_AT_ONCE", 7)
    x = features(40, 1)
    whole, parts = Samples([x]), Samples([x[:15], x[15:16], x[16:]])
    assert len(whole) == len(parts) == 40
    torch.testing.assert_close(whole.sums, parts.sums, rtol=1e-12, atol=0)
    np.testing.assert_allclose(parts.mean, x.astype(float).mean(0))
    np.testing.assert_allclose(parts.covariance, np.cov(x.astype(float), rowvar=False))


def textbook_kid(x, y):
    """Unbiased squared discrepancy under (xy / D + 1)^3, pair by pair."""

    def kernel(a, b):
        return (np.dot(a, b) / len(a) + 1) ** 3

    n = len(x)
    pairs = [(i, j) for i in range(n) for j in range(n)]
    within = sum(kernel(v[i], v[j]) for v in (x, y) for i, j in pairs if i != j)
    between = sum(kernel(x[i], y[j]) for i, j in pairs)
    return within / (n * (n - 1)) - 2 * between / n**2


def test_kid_is_the_textbooks_and_the_librarys_where_nothing_is_drawn():
    # Subsets of all samples: every draw is the same.
    x, y = features(30, 1), features(30, 2, shift=1)
    theirs = KernelInceptionDistance(feature=Toy(), subset_size=30, subsets=2)
    theirs.update(pictures(30, 1), real=True)
    theirs.update(pictures(30, 2, shift=1), real=False)
    ours = kid(x, y, 30)
    expected = textbook_kid(x.astype(float), y.astype(float))
    assert expected > 0.01
    assert ours == pytest.approx(expected, rel=1e-5)
    assert ours == pytest.approx(theirs.compute()[0].item(), rel=1e-4)


def test_kid_draws_the_same_subsets_whatever_the_order_of_samples():
    x, y = features(90, 1), features(80, 2, shift=0.5)
    value = kid(x, y, 20)
    mixed = np.random.default_rng(0).permutation(90)
    parts = [x[mixed][:11], x[mixed][11:12], x[mixed][12:]]
    assert kernel_distance(Samples(parts), Samples([y[::-1]]), 20) == value
    # Each draw has other samples, or the mean would be one subset's.
    whole = kid(x[:80], y, 80)
    assert value != whole and value == pytest.approx(whole, rel=0.3)


def test_kid_is_refused_below_the_size_of_its_subsets():
    with pytest.raises(UnavailableMetricError, match="of 1000 samples, there are 999"):
        kid(features(1000, 1), features(999, 2))


@pytest.mark.parametrize(
    ("height", "width", "count"),
    [
        # HiFiC's grids; NeuralCompression has 28 + 21, 10 + 8 and 3 + 2.
        (1080, 1920, 28 + 18),
        (720, 1280, 10 + 4),
        (480, 832, 3),
        (256, 256, 1),
        (512, 511, 2),
    ],
)
def test_squares_are_as_many_as_the_paper_has(height, width, count):
    frames = torch.zeros(2, 3, height, width, dtype=torch.uint8)
    assert len(patches(frames)) == 2 * count


def test_squares_are_cut_where_they_belong():
    height, width = 520, 770
    number = torch.arange(height * width).reshape(1, 1, height, width)
    squares = patches(number.expand(1, 3, -1, -1))
    places = [(int(s[0, 0, 0]) // width, int(s[0, 0, 0]) % width) for s in squares]
    grid = [(y, x) for y in (0, 256) for x in (0, 256, 512)]
    assert places == [*grid, (128, 128), (128, 384)]
    assert squares.shape == (8, 3, 256, 256)
    assert squares[-1, 2, -1, -1] == (128 + 255) * width + 384 + 255


def test_squares_of_two_frames_stay_apart():
    frames = torch.stack([torch.full((3, 256, 512), v) for v in (1, 2)])
    assert patches(frames)[:, 0, 0, 0].tolist() == [1, 1, 2, 2]


def test_frames_below_256_have_no_squares():
    with pytest.raises(UnavailableMetricError, match=r"fid_256.*256x256.*have 416x240"):
        patches(torch.zeros(1, 3, 240, 416))


def test_pictures_are_rounded_to_8_bits():
    frames = torch.tensor([-0.1, 0.4 / 255, 0.6 / 255, 1.5]).reshape(2, 2, 1, 1, 1)
    codes = to_8_bit(frames.expand(2, 2, 3, 4, 5))
    assert codes.shape == (4, 3, 4, 5) and codes.dtype == torch.uint8
    assert codes[:, 0, 0, 0].tolist() == [0, 0, 1, 255]


def test_fid_needs_only_sums_and_those_of_parts_add_up():
    x, y = features(60, 0), features(50, 1, shift=1)
    source, one, other = (Moments(SIZE) for _ in range(3))
    source.add(torch.from_numpy(x))
    one.add(torch.from_numpy(y[:35]))
    one.add(torch.from_numpy(y[35:35]))
    other.add(torch.from_numpy(y[35:]))
    one.products += other.products
    assert (len(source), len(one)) == (60, 50)
    assert frechet_distance(source, one) == pytest.approx(fid(x, y), rel=1e-9)
    np.testing.assert_allclose(one.mean, y.astype(float).mean(0))


def test_missing_weights_are_named_with_their_place(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for package in ("torch_fidelity", "piq"):
        monkeypatch.setattr(sys, "modules", {**sys.modules, package: fake(package)})
    folder = tmp_path / "hub" / "checkpoints"
    for check, file in (
        (check_inception, folder / "weights-inception-2015-12-05-6726825d.pth"),
        (Inception, folder / "weights-inception-2015-12-05-6726825d.pth"),
        (check_brisque, folder / "brisque_svm_weights.pt"),
    ):
        with pytest.raises(UnavailableMetricError, match=str(file)):
            check()
    folder.mkdir(parents=True)
    for file in (inception_file(), brisque_file()):
        file.touch()
    check_inception()
    check_brisque()


def fake(name, **contents):
    module = types.ModuleType(name)
    module.__spec__ = types.SimpleNamespace(name=name)
    vars(module).update(contents)
    return module


@pytest.mark.parametrize("check", [check_inception, check_brisque])
def test_a_missing_package_is_named_with_how_to_install_it(check, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnavailableMetricError, match=r"pip install (torch|piq)"):
        check()


def test_result_files_name_what_is_computed():
    pooled = {name: metric for name, metric in METRICS.items() if metric.pooled}
    assert {metric.pooled for metric in pooled.values()} == set(SAMPLES)
    for name, metric in pooled.items():
        assert "no antialiasing" in metric.definition and "2048" in metric.definition
        assert ("HiFiC" in metric.definition) == name.endswith("_256")
        assert not metric.higher_is_better
        assert metric.fewest_samples in (0, Inception.size)


def test_inception_is_torch_fidelitys_with_the_file_that_lies_there(
    random_weights, monkeypatch
):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    monkeypatch.setenv("TORCH_HOME", str(random_weights))
    theirs = FeatureExtractorInceptionV3(
        "inception-v3-compat",
        ["2048"],
        feature_extractor_weights_path=str(inception_file()),
    )
    some = torch.randint(0, 256, (2, 3, 400, 310), dtype=torch.uint8)
    ours = Inception()
    assert not ours.network.training
    assert not any(p.requires_grad for p in ours.network.parameters())
    expected = theirs.eval()(some)[0]
    found = ours(some)
    assert found.shape == (2, Inception.size)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)
    # With antialiasing, torchmetrics' default, features are others.
    ours.network.use_antialias = True
    assert not torch.allclose(ours(some[:1]), expected[:1], rtol=0.1, atol=0)


@pytest.fixture
def contrast(monkeypatch):
    """In the place of piq's BRISQUE: refuses what has no contrast, like it."""

    def measure(x, data_range):
        assert data_range == 255 and x.shape[0] == 1
        spread = x.std()
        assert spread > 0, "Expected image with non zero variance of pixel values"
        return spread.reshape(1)

    monkeypatch.setitem(sys.modules, "piq", fake("piq", brisque=measure))
    monkeypatch.setattr(brisque_module, "check_brisque", lambda: None)


def test_brisque_is_measured_frame_by_frame_on_8_bits(contrast):
    frames = torch.rand(2, 3, 3, 16, 20) * 1.1
    values = brisque(frames)
    rounded = np.rint(255 * frames.numpy().clip(0, 1))
    expected = [[frame.std(ddof=1) for frame in clip] for clip in rounded]
    assert values.numpy() == pytest.approx(np.array(expected), rel=1e-5)


def test_brisque_says_what_it_is_not_defined_for(contrast, monkeypatch):
    with pytest.raises(UnavailableMetricError, match=r"without contrast.*non zero var"):
        brisque(torch.full((3, 16, 16), 0.5))
    with pytest.raises(UnavailableMetricError, match=r"at least 16x16.*have 15x20"):
        brisque(torch.rand(3, 20, 15))
    nothing = fake("piq", brisque=lambda x, data_range: torch.tensor(math.nan))
    monkeypatch.setitem(sys.modules, "piq", nothing)
    with pytest.raises(UnavailableMetricError, match="NaN"):
        brisque(torch.rand(3, 16, 16))


def test_brisque_is_piqs_with_the_file_that_lies_there(tmp_path, monkeypatch):
    piq = pytest.importorskip("piq")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    brisque_file().parent.mkdir(parents=True)
    torch.save((torch.randn(774, 1), torch.randn(774, 36)), brisque_file())
    frame = to_8_bit(torch.rand(3, 32, 40))
    expected = piq.brisque(frame.float() / 255, data_range=1.0)
    assert brisque(frame[0] / 255).item() == pytest.approx(expected.item(), abs=1e-3)
