"""Tiny VideoVAE models with something to code, and what to code with them."""

import re

import torch

from lightning_modules import VideoVAE
from lightning_modules.packets import Packet
from lightning_modules.video_vae.codec import VideoVAECodec

SIZE = (32, 40)
SMALL = {"backbone": "lean_vae", "channels": 64, "halvings": 0, "frames_per_unit": 5}


def make_lively(codec):
    """Stretch the latents of random weights, so that there is something to code."""
    for name, parameter in codec.named_parameters():
        if re.search(r"latent_codec\.(hyper_)?encoder\.\d+\.weight$", name):
            parameter.data *= 4.0
    return codec


def lively(**arguments):
    torch.manual_seed(3)
    return make_lively(VideoVAECodec("tiny", **{**SMALL, **arguments})).eval()


def scene(frames, height=SIZE[0], width=SIZE[1]):
    """A texture that pans, so that every frame differs."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(1, 3, 9, 12, generator=generator)
    wide = torch.nn.functional.interpolate(
        coarse, (height, width + 4 * frames), mode="bicubic"
    ).clamp(0, 1)[0]
    return torch.stack([wide[..., 3 * t : 3 * t + width] for t in range(frames)])


def coded(codec, frames, **options):
    """Return packets as a file holds them, and the encoder's own frames."""
    packets = list(codec.compress(frames, 0.2, reconstruct=True, **options))
    own = torch.cat([packet.x_hat for packet in packets])
    return [Packet(p.payload, p.frames, p.checksum) for p in packets], own


def decoded(codec, packets):
    return torch.stack(list(codec.decompress(packets, *SIZE)))


def module(**arguments):
    torch.manual_seed(3)
    built = VideoVAE(**{"size": "tiny", **SMALL, "lpips": "random", **arguments})
    make_lively(built.codec)
    return built.train()
