"""No frame that DualDomain shows depends on another one."""

import inspect
from dataclasses import replace
from functools import partial

import pytest
import torch

from lightning_modules.dual_domain.attempts import attempts
from lightning_modules.dual_domain.network import (
    Coded,
    DualDomainNetwork,
    Mode,
    latent_shape,
)
from lightning_modules.dual_domain.ports import EncodePort
from lightning_modules.entropy.ports import EstimatePort

PROPAGATING = [
    {"quantiser": "mean_centred", "mode_decision": "inter"},
    {"transform": "separate", "mode_decision": "inter"},
]


def noise_like(state):
    return tuple(
        replace(
            r,
            x_hat=torch.rand_like(r.x_hat),
            y_hat=5 * torch.randn_like(r.y_hat),
            flow=None if r.flow is None else 9 * torch.randn_like(r.flow),
        )
        for r in state
    )


def test_nothing_that_makes_pixels_or_symbols_takes_another_frame():
    for method, names in (
        (DualDomainNetwork.analyse, {"self", "frame", "quality"}),
        (DualDomainNetwork.synthesise, {"self", "coded", "quality"}),
        (DualDomainNetwork.to_latent, {"self", "coded", "quality"}),
    ):
        assert set(inspect.signature(method).parameters) == names
    assert set(Coded.__dataclass_fields__) == {"values", "hyper"}


@torch.inference_mode()
def test_noise_for_every_reference_changes_the_rate_and_nothing_else(dual_domain):
    codec = dual_domain.make(mode_decision="inter")
    clip = dual_domain.scene(4)
    coder, state = dual_domain.coded_after(codec, clip[:3])
    assert len(state) == 3
    unit, left = coder.encode(clip[3], 0.67, state, reconstruct=True)
    noisy = noise_like(state)
    other_unit, there = coder.encode(clip[3], 0.67, noisy, reconstruct=True)
    (own,), (other,) = unit.make(), other_unit.make()
    assert torch.equal(own.x_hat, other.x_hat)
    assert torch.equal(left[0].x_hat, there[0].x_hat)
    assert torch.equal(left[0].y_hat, there[0].y_hat)
    assert abs(own.estimated_bits - other.estimated_bits) > 1


@torch.inference_mode()
def test_a_frame_has_the_same_pixels_intra_and_inter(dual_domain, codec):
    clip = dual_domain.scene(3)
    coder, state = dual_domain.coded_after(codec, clip[:2])
    value, frame = 43909 / 65535, clip[2]
    padded = torch.nn.functional.pad(frame[None], (0, 8, 0, 8), mode="replicate")
    quality = torch.tensor([value]).double()
    port = partial(EncodePort, coder.tables, estimate=False)
    modes = coder.modes(state)
    tried = attempts(coder.network, coder.exact, padded, quality, state, modes, port)
    assert {attempt.mode for attempt in tried} == set(Mode)
    symbols = [attempt.coded.values for attempt in tried]
    assert all(torch.equal(symbols[0], other) for other in symbols[1:])
    assert torch.equal(symbols[0], symbols[0].round()) and symbols[0].abs().max() > 2
    assert len({attempt.port.encoder.finish() for attempt in tried}) == 3
    shown = set()
    for attempt in tried:
        pixels, _ = coder.exact.finish(
            attempt.coded, attempt.seen, attempt.flow, quality
        )
        shown.add(pixels.numpy().tobytes())
    assert len(shown) == 1


def gradients_of_references(dual_domain, options):
    """Return the gradients of a frame's pixels and of its bits by its reference."""
    codec = dual_domain.make(**options)
    network, clip = codec.network, dual_domain.scene(2, 48, 64)
    with torch.no_grad():
        _, state = dual_domain.coded_after(codec, clip[:1])
    reference = replace(
        state[0],
        x_hat=state[0].x_hat.float().clone().requires_grad_(),
        y_hat=state[0].y_hat.float().clone().requires_grad_(),
    )
    quality = torch.tensor([0.5])
    frame = clip[1:2]
    shape = latent_shape(frame)
    port = EstimatePort(None)
    motion = network.analyse_flow(frame, reference.x_hat, quality)
    flow = network.code_motion(Mode.INTER, motion, quality, shape, port)
    if codec.options.transform == "separate":
        target = network.analyse_inter(frame, reference.x_hat, flow, quality)
    else:
        target = network.analyse(frame, quality)
    coded = network.code(target, (reference,), flow, quality, shape, port)
    pixels, _ = network.finish(coded, (reference,), flow, quality)
    leaves = [reference.x_hat, reference.y_hat]

    def gradients(x):
        return torch.autograd.grad(
            x.sum(), leaves, retain_graph=True, allow_unused=True
        )

    return gradients(pixels), gradients(port.bits)


def test_pixels_have_no_gradient_by_references_and_bits_have(dual_domain):
    pixels, bits = gradients_of_references(dual_domain, {})
    assert pixels == (None, None)
    assert all(gradient.any() for gradient in bits)


def test_the_gradient_check_can_fail(dual_domain):
    # Rounding a difference from a mean hides it from gradients: not mean_centred.
    pixels, _ = gradients_of_references(dual_domain, PROPAGATING[1])
    assert any(gradient is not None and gradient.any() for gradient in pixels)


def later_frames(dual_domain, codec, first_quality):
    clip = dual_domain.scene(5)
    packets = codec.compress(
        clip,
        0.67,
        reconstruct=True,
        rate_at=lambda t: first_quality if t == 0 else 0.67,
    )
    return torch.cat([packet.x_hat for packet in packets])[1:]


def test_a_bad_first_frame_does_not_touch_the_frames_after_it(dual_domain, codec):
    assert torch.equal(
        later_frames(dual_domain, codec, 0.0), later_frames(dual_domain, codec, 1.0)
    )


@pytest.mark.parametrize("options", PROPAGATING, ids=["mean_centred", "separate"])
def test_the_drift_check_can_fail(dual_domain, options):
    codec = dual_domain.make(**options)
    drift = (
        later_frames(dual_domain, codec, 0.0) - later_frames(dual_domain, codec, 1.0)
    ).abs()
    assert (drift.amax(dim=(1, 2, 3)) > 0).all()
    assert drift.max() > 0.01
