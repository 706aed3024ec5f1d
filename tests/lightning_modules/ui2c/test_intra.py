"""What DCVC-RT's image model does as published, and other networks of its kind not."""

import pytest
import torch

from lightning_modules.entropy.distributions import Factorised
from lightning_modules.entropy.priors import FactorisedPrior
from lightning_modules.entropy.steps import step_masks
from lightning_modules.ui2c.intra import GAINS, IntraNetwork

LATENTS = 8
QP = torch.tensor([5])


class Given:
    """Gives z as drawn, and no residuals."""

    def __init__(self, z):
        self.z = z

    def code(self, x, of):
        return self.z if isinstance(of, Factorised) else torch.zeros(())


@pytest.fixture
def network():
    torch.manual_seed(3)
    return IntraNetwork(16, LATENTS, 4, rows=64).eval()


@torch.inference_mode()
def test_the_prior_is_cropped_after_the_layers_that_see_beyond(network, monkeypatch):
    size = 5, 6
    z = torch.randn(network.z_prior.shape(1, *size)) * 3
    priors = []

    def keep(y, prior, port):
        priors.append(prior)
        return torch.zeros(1, LATENTS, *size)

    monkeypatch.setattr(network, "code_latent", keep)
    network(None, QP, Given(z), size)
    hyper = network.hyper_decoder(z)
    assert hyper.shape[-2:] == (8, 8)
    cropped = network.fusion(hyper)[..., :5, :6]
    torch.testing.assert_close(priors[0], cropped)
    # Where the order does not matter, this would test nothing.
    other = network.fusion(hyper[..., :5, :6])
    assert (other - cropped).abs().max() > 1e-3


@torch.inference_mode()
def test_gains_are_the_first_maps_of_the_prior(network):
    mean = 3.0
    head = network.spatial_prior[-1]
    head.weight.zero_()
    head.bias[LATENTS:] = mean
    prior = torch.zeros(1, GAINS + 2 * LATENTS, 2, 2)
    prior[:, GAINS + LATENTS :] = mean
    # Of y in the encoder, and of y_hat in the decoder: gates wide open, and shut.
    prior[:, 0], prior[:, 1] = 40.0, -40.0
    y_hat = network.code_latent(None, prior, Given(None))
    torch.testing.assert_close(y_hat, torch.full_like(y_hat, 0.5 * mean))


def test_four_steps_go_to_the_opposite_corner_first():
    masks = step_masks(4, 4, 2, 2, torch.device("cpu"))
    places = [divmod(int(mask[0].flatten().int().argmax()), 2) for mask in masks]
    assert places == [(0, 0), (1, 1), (1, 0), (0, 1)]


def test_z_is_what_a_signed_byte_holds():
    of = Factorised(FactorisedPrior(1, 2), (1, 2, 1, 2))
    far = torch.tensor([-200.0, -128.0, 127.0, 200.0]).reshape(1, 2, 1, 2)
    assert of.bound(far).flatten().tolist() == [-128, -128, 127, 127]
