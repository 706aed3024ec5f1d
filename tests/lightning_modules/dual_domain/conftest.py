"""Tiny DualDomain codecs, and what to code with them."""

from types import SimpleNamespace

import pytest
import torch

from lightning_modules.dual_domain.codec import DualDomainCodec

SIZE = (40, 56)


@pytest.fixture(scope="session")
def dual_domain(scene):
    """What builds a codec, and codes a scene with it."""
    return SimpleNamespace(
        SIZE=SIZE,
        make=make,
        scene=lambda frames, height=SIZE[0], width=SIZE[1]: scene(
            frames, height, width
        ),
        coded_after=coded_after,
    )


@pytest.fixture(scope="module")
def codec():
    return make()


def make(**options):
    torch.manual_seed(1)
    return DualDomainCodec("tiny", **options).eval()


@torch.inference_mode()
def coded_after(codec, frames, quality=0.67):
    """Code frames; return the coder, and what they leave to the next."""
    coder = codec.frame_coder(codec.coding.numeric)
    state = ()
    for frame in frames:
        _, state = coder.encode(frame, quality, state)
    return coder, state
