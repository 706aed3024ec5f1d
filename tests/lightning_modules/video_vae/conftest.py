"""Tiny VideoVAE models with something to code, and state dicts like published ones."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_modules.packets import Packet
from lightning_modules.video_vae.codec import VideoVAECodec
from lightning_modules.video_vae.lean_vae import LeanVAEWidths

SIZE = (32, 40)
SMALL = {"backbone": "lean_vae", "channels": 64, "halvings": 0, "frames_per_unit": 5}


@pytest.fixture(scope="session")
def video_vae(lively_module, scene):
    """What builds a model, and codes a scene with it."""

    def module(**arguments):
        arguments = {**SMALL, "lpips": "random", **arguments}
        return lively_module("VideoVAE", seed=3, **arguments).train()

    return SimpleNamespace(
        SIZE=SIZE,
        SMALL=SMALL,
        module=module,
        lively=lambda **arguments: module(**arguments).codec.eval(),
        scene=lambda frames, height=SIZE[0], width=SIZE[1]: scene(
            frames, height, width
        ),
        coded=coded,
        decoded=decoded,
    )


def coded(codec, frames, **options):
    """Return packets as a file holds them, and the encoder's own frames."""
    packets = list(codec.compress(frames, 0.2, reconstruct=True, **options))
    own = torch.cat([packet.x_hat for packet in packets])
    return [Packet(p.payload, p.frames, p.checksum) for p in packets], own


def decoded(codec, packets):
    return torch.stack(list(codec.decompress(packets, *SIZE)))


@pytest.fixture
def codec(video_vae):
    """One of its own: tests change how it codes."""
    return video_vae.lively()


WIDTH = 16
LEAN = LeanVAEWidths(low=8, high=24, separate=2, fused=3, iterations=2, recovery=2)


@pytest.fixture(scope="session")
def released():
    """State dicts with the names and shapes of the published ones."""
    return SimpleNamespace(
        WIDTH=WIDTH,
        LEAN=LEAN,
        Codec=Weights,
        cv_shapes=cv_shapes,
        lean_shapes=lean_shapes,
        random_state=random_state,
        save=save,
    )


class Weights(nn.Module):
    """A VideoVAE as far as weights are concerned."""

    find_released = VideoVAECodec.find_released
    released_beside = VideoVAECodec.released_beside

    def __init__(self, backbone, latent_codec=None):
        super().__init__()
        self.backbone = backbone
        self.latent_codec = latent_codec


def convolution(inputs, outputs, *kernel):
    return {"weight": (outputs, inputs, *kernel), "bias": (outputs,)}


def affine(channels):
    return {"weight": (channels,), "bias": (channels,)}


def named(prefix, parts):
    return {
        f"{prefix}.{name}.{kind}": shape
        for name, tensors in parts.items()
        for kind, shape in tensors.items()
    }


def cv_block(name, inputs, outputs, half_3d):
    second = (3, 3) if half_3d else (3, 3, 3)
    parts = {
        "norm1": affine(inputs),
        "conv1": convolution(inputs, outputs, 3, 3, 3),
        "norm2": affine(outputs),
        "conv2": convolution(outputs, outputs, *second),
    }
    if inputs != outputs:
        parts["nin_shortcut"] = convolution(inputs, outputs, 1, 1, 1)
    return named(name, parts)


def cv_middle(side, width, half_3d):
    space = {n: convolution(width, width, 1, 1) for n in ("q", "k", "v", "proj_out")}
    time = {n: convolution(width, width) for n in ("q_t", "k_t", "v_t", "proj_out_t")}
    attention = {"norm": affine(width), **space}
    if side == "decoder":
        attention |= {"norm_t": affine(width), **time}
    return {
        **cv_block(f"{side}.mid.block_1", width, width, half_3d),
        **named(f"{side}.mid.attn_1", attention),
        **cv_block(f"{side}.mid.block_2", width, width, half_3d),
    }


def cv_shapes(ch=WIDTH, z=4, half_3d=True):
    widths = [ch, 2 * ch, 4 * ch, 4 * ch]
    ends = {
        "conv_in": convolution(3, ch, 3, 3, 3),
        "norm_out": affine(widths[3]),
        "conv_out": convolution(widths[3], 2 * z, 3, 3, 3),
    }
    shapes = {**named("encoder", ends), **cv_middle("encoder", widths[3], half_3d)}
    inputs = ch
    for i, width in enumerate(widths):
        for j in range(2):
            shapes |= cv_block(f"encoder.down.{i}.block.{j}", inputs, width, half_3d)
            inputs = width
        if i < 3:
            conv = {"conv": convolution(width, width, 3, 3, 3)}
            shapes |= named(f"encoder.down.{i}.downsample", conv)
    ends = {
        "conv_in": convolution(z, widths[3], 3, 3, 3),
        "norm_out": affine(ch),
        "conv_out": convolution(ch, 3, 3, 3, 3),
    }
    shapes |= {**named("decoder", ends), **cv_middle("decoder", widths[3], half_3d)}
    for i in (3, 2, 1, 0):
        for j in range(3):
            shapes |= cv_block(f"decoder.up.{i}.block.{j}", inputs, widths[i], half_3d)
            inputs = widths[i]
        if i:
            grown = inputs * (2 if i in (1, 3) else 1)
            conv = {"conv": convolution(inputs, grown, 3, 3, 3)}
            shapes |= named(f"decoder.up.{i}.upsample", conv)
    return shapes


def lean_layers(name, count, width):
    hidden = int(8 / 3 * width)
    shapes = {}
    for i in range(count):
        shapes |= named(f"{name}.ffd_layer.{i}", {"0": affine(width)})
        shapes[f"{name}.ffd_layer.{i}.1.weight"] = (2 * hidden, width)
        shapes[f"{name}.ffd_layer.{i}.4.weight"] = (width, hidden)
        depthwise = {"ds_conv": convolution(1, width, 3, 3, 3)}
        shapes |= named(f"{name}.dconv_layer.{i}", depthwise)
    return shapes


def lean_shapes(w=LEAN, c=5):
    total = w.low + w.high
    shapes = {
        "latent_bottleneck.phi": (c, total),
        "latent_bottleneck.Q": (total, c),
        **{f"std_layer.{k}": shape for k, shape in convolution(total, c).items()},
    }
    for i in range(w.iterations):
        shapes[f"latent_bottleneck.weights.{i}"] = ()
        shapes[f"latent_bottleneck.threshold.{i}"] = (1,)
        for part in ("forward_l", "backward_l"):
            name = f"latent_bottleneck.{part}.{i}"
            shapes |= lean_layers(name, w.recovery, total)
    patches = {
        "video_low": (96, w.low),
        "video_high": (672, w.high),
        "image_low": (48, w.low),
        "image_high": (144, w.high),
    }
    for name, (patch, token) in patches.items():
        shapes |= named(f"encoder.{name}_proj", {"1": convolution(patch, token)})
        shapes |= named(f"decoder.{name}_proj", {"0": convolution(token, patch)})
    for side in ("encoder", "decoder"):
        shapes |= lean_layers(f"{side}.low_layer", w.separate, w.low)
        shapes |= lean_layers(f"{side}.high_layer", w.separate, w.high)
        shapes |= lean_layers(f"{side}.fusion_layer", w.fused, total)
    return shapes


def random_state(shapes):
    torch.manual_seed(0)
    state = {}
    for key, shape in shapes.items():
        values = torch.randn(shape)
        if len(shape) > 1:
            values *= (2 / values[0].numel()) ** 0.5
        else:
            values = values * 0.2 + (key.endswith("weight") or "weights" in key)
        state[key] = values
    return state


def save(tmp_path, content, name="released.ckpt"):
    torch.save(content, tmp_path / name)
    return tmp_path / name
