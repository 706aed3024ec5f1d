"""Tiny DualDomain codecs, and what to code with them."""

import torch

from lightning_modules.dual_domain.codec import DualDomainCodec

HEIGHT, WIDTH = 40, 56


def make(**options):
    torch.manual_seed(1)
    return DualDomainCodec("tiny", **options).eval()


def moving_clip(frames, height=HEIGHT, width=WIDTH):
    """A picture that moves to the right by two pixels a frame."""
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(1, 3, 6, 16, generator=generator)
    size = (height, width + 2 * frames)
    wide = torch.nn.functional.interpolate(coarse, size, mode="bicubic")[0].clamp(0, 1)
    starts = [2 * (frames - t) for t in range(frames)]
    return torch.stack([wide[..., s : s + width] for s in starts])


@torch.inference_mode()
def coded_after(codec, frames, quality=0.67):
    """Code frames; return the coder, and what they leave to the next."""
    coder = codec.frame_coder(codec.coding.numeric)
    state = ()
    for frame in frames:
        _, state = coder.encode(frame, quality, state)
    return coder, state
