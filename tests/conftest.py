"""What tests of several folders share: a scene, modules with something to code."""

import fcntl
import os
import re
import shutil
import signal
import threading
from copy import deepcopy

from lightning_modules.numerics import PINS

# A shell's background job ignores Ctrl-C, and so would every process that it starts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before torch starts its threads: the suite runs several test processes at once, and a
# thread that waits for another one must not keep a core busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Commands do this before they import torch, and here they run in this process.
os.environ.update({name: value for name, value in PINS.items() if value})
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")

import pytest
import torch
import yaml

import lightning_modules
from experiments.fit import command as fit


@pytest.fixture(autouse=True)
def _as_if_alone():
    torch.manual_seed(0)
    # Commands that ran in this process, or in a fixture, have set their own number.
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("pipeline worker")]


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Fill a folder once for all test processes, which wait for the first one."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def folder_of(name, fill):
        folder, filled = shared / name, shared / f"{name}.filled"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def random_weights(once):
    """A TORCH_HOME with SqueezeNet for LPIPS and Inception for FID, never trained."""

    def fill(home):
        import torchvision
        from torch_fidelity import feature_extractor_inceptionv3 as inception

        from callbacks.metrics.distribution import inception_file
        from lightning_modules.perceptual import lpips_file

        torch.manual_seed(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TORCH_HOME", str(home))
            inception_file().parent.mkdir(parents=True)
            squeeze = torchvision.models.squeezenet1_1(weights=None)
            torch.save(squeeze.state_dict(), lpips_file("squeeze"))
            # The class cannot be made without weights.
            network = inception.FeatureExtractorInceptionV3
            patch.setattr(inception, "load_state_dict_from_url", lambda *a, **k: {})
            patch.setattr(network, "load_state_dict", lambda *a: None)
            weights = network("inception-v3-compat", ["2048"]).state_dict()
            for weight in weights.values():
                if weight.ndim == 4:
                    # Torch's default shrinks what passes through fifty layers to 0.
                    weight *= 6**0.5
            torch.save(weights, inception_file())

    return once("random_weights", fill)


@pytest.fixture(scope="session")
def scene():
    """Frames of a texture that pans: each differs and refers to the last."""

    def pan(frames, height, width):
        generator = torch.Generator().manual_seed(5)
        coarse = torch.rand(1, 3, 9, 12, generator=generator)
        wide = torch.nn.functional.interpolate(
            coarse, (height, width + 4 * frames), mode="bicubic"
        ).clamp(0, 1)[0]
        return torch.stack([wide[..., 3 * t : 3 * t + width] for t in range(frames)])

    return pan


STRETCHED = {
    r"encoder_down\.weight": 4.0,
    r"posterior\.1\.weight": 10.0,
    r"latent_codec\.(hyper_)?encoder\.\d+\.weight": 4.0,
    r"network\.encoder\.6\.weight": 6.0,
    r"network\.\w+_(en|de)coder\.6\.weight": 40.0,
    r"_hyperprior\.hyper_encoder\.4\.weight": 40.0,
    r"_hyperprior\.hyper_decoder_scale\.deconv3\.weight": 40.0,
}
"""Factors of the weights that make latents, of one codec a line."""


@pytest.fixture(scope="session")
def lively_module():
    """Build a tiny module whose random weights leave something to code."""

    def build(name, seed=1, **arguments):
        torch.manual_seed(seed)
        module = getattr(lightning_modules, name)(**{"size": "tiny", **arguments})
        for key, parameter in module.codec.named_parameters():
            for ending, factor in STRETCHED.items():
                if re.search(f"{ending}$", key):
                    parameter.data *= factor
        return module

    return build


@pytest.fixture(scope="session")
def save_checkpoint():
    """Save a module as training does; return the path."""

    def save(module, path):
        saved = {"state_dict": module.state_dict(), "global_step": 0}
        module.on_save_checkpoint(saved)
        torch.save(saved, path)
        return path

    return save


@pytest.fixture(scope="session")
def fit_options():
    """What keeps a run of ``fit`` small, quiet and in one process."""
    return [
        "--data.workers=0",
        "--data.val_clips=1",
        "--data.val_frames=2",
        "--data.val_crop=64",
        "--trainer.threads=1",
        "--trainer.accelerator=cpu",
        "--logger=csv",
        "--tracking.metrics=[psnr,bpp]",
        "--tracking.strips_every_n_validations=0",
    ]


SCHEDULE = {
    "model": {"class_path": "UI2C", "init_args": {"size": "tiny"}},
    "stages": [
        {"name": "first", "steps": 2, "frames": 3, "crop": 32, "batch_size": 2},
        {"name": "second", "steps": 3, "frames": 5, "crop": 32, "batch_size": 2},
    ],
    "trainer": {"log_every_n_steps": 1, "val_every_n_steps": 100},
}


@pytest.fixture
def schedule():
    """A configuration of two short stages."""
    return deepcopy(SCHEDULE)


@pytest.fixture(scope="session")
def two_stages(fit_options):
    """Run ``fit`` on the schedule, with options and with keys that are changed."""

    def run(folder, *options, **changes):
        folder.mkdir(exist_ok=True)
        config = folder / "schedule.yaml"
        config.write_text(yaml.safe_dump({**SCHEDULE, **changes}))
        given = [f"--config={config}", f"--runs_dir={folder}", *fit_options, *options]
        return fit.main(given)

    return run
