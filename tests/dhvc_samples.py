"""A DHVC that has something to code, a scene, and its packets there and back."""

import torch

from lightning_modules.dhvc.codec import DHVCCodec

SIZE = (50, 70)


def lively(gain=1.5, **arguments):
    """Return a codec of random weights whose latents are not all 0."""
    torch.manual_seed(3)
    codec = DHVCCodec("tiny", **arguments).eval()
    for name, parameter in codec.named_parameters():
        if name.endswith("posterior.1.weight"):
            parameter.data *= gain
        if name.endswith("constant"):
            parameter.data.normal_()
    return codec


def scene(frames, height=SIZE[0], width=SIZE[1]):
    """A texture that pans, so that every frame differs and refers to the last."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(1, 3, 9, 12, generator=generator)
    wide = torch.nn.functional.interpolate(
        coarse, (height, width + 4 * frames), mode="bicubic"
    ).clamp(0, 1)[0]
    return torch.stack([wide[..., 3 * t : 3 * t + width] for t in range(frames)])


def coded(codec, frames, **options):
    """Return packets by frame and scale, and the encoder's own frames."""
    lmbda = codec.rate_knob.points[-1]
    packets = list(codec.compress(frames, lmbda, reconstruct=True, **options))
    groups = [
        packets[i : i + codec.scales] for i in range(0, len(packets), codec.scales)
    ]
    return groups, [group[-1].x_hat[0] for group in groups]


def received(codec, groups, lost=(), **options):
    """Decode without the packets ``lost``, each (frame, scale), both from 1."""
    packets = [
        None if (frame, scale) in lost else packet
        for frame, group in enumerate(groups, 1)
        for scale, packet in enumerate(group, 1)
    ]
    return list(codec.receive(packets, *SIZE, **options))


def same(shown, own):
    return [torch.equal(r.frame, frame) for r, frame in zip(shown, own, strict=True)]
