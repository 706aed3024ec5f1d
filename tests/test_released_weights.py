"""Published weights of CV-VAE and LeanVAE: their names, and what they compute.

The names and shapes below are those of the published state dicts. What the networks
compute is written here once more, plainly, reading those names; the backbones must
agree with it.
"""

import argparse
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from experiments.weights import init_from
from lightning_modules.video_vae.backbone import build_backbone
from lightning_modules.video_vae.cv_vae import CVVAE
from lightning_modules.video_vae.lean_vae import LeanVAE, LeanVAEWidths
from lightning_modules.video_vae.released import LATENT_LAYERS, find_released

WIDTH = 16
LEAN = LeanVAEWidths(low=8, high=24, separate=2, fused=3, iterations=2, recovery=2)


# Names and shapes


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


# What they compute, from the specification


def cv_convolve(s, name, x, causal):
    weight, bias = s[f"{name}.weight"], s[f"{name}.bias"]
    if weight.ndim == 4:
        frames = [F.conv2d(frame, weight, bias, padding=1) for frame in x.unbind(dim=2)]
        return torch.stack(frames, dim=2)
    if weight.shape[-1] == 1:
        return F.conv3d(x, weight, bias)
    x = F.pad(x, (1, 1, 1, 1, 0, 0))
    if causal:
        x = F.pad(x, (0, 0, 0, 0, 2, 0), mode="replicate")
    else:
        x = F.pad(x, (0, 0, 0, 0, 1, 1))
    return F.conv3d(x, weight, bias)


def cv_norm(s, name, x):
    # The published networks have 32 groups, as ours have at that width.
    groups = min(32, x.shape[1] // 4)
    return F.group_norm(x, groups, s[f"{name}.weight"], s[f"{name}.bias"], eps=1e-5)


def cv_residual(s, name, x, causal):
    inner = cv_convolve(
        s, f"{name}.conv1", F.silu(cv_norm(s, f"{name}.norm1", x)), causal
    )
    inner = F.silu(cv_norm(s, f"{name}.norm2", inner))
    inner = cv_convolve(s, f"{name}.conv2", inner, causal)
    if f"{name}.nin_shortcut.weight" in s:
        x = cv_convolve(s, f"{name}.nin_shortcut", x, causal)
    return x + inner


def attend(query, key, value):
    scores = torch.einsum("nic,njc->nij", query, key) / query.shape[-1] ** 0.5
    return torch.einsum("nij,njc->nic", scores.softmax(-1), value)


def linear(s, name, x):
    return F.linear(x, s[f"{name}.weight"].flatten(1), s[f"{name}.bias"])


def cv_attention(s, name, x, time):
    frames = []
    for frame in x.unbind(dim=2):
        tokens = cv_norm(s, f"{name}.norm", frame).flatten(2).transpose(1, 2)
        parts = (linear(s, f"{name}.{part}", tokens) for part in "qkv")
        frames.append(linear(s, f"{name}.proj_out", attend(*parts)))
    out = torch.stack(frames, dim=1)
    if time:
        positions = []
        for tokens in out.unbind(dim=2):
            weight, bias = s[f"{name}.norm_t.weight"], s[f"{name}.norm_t.bias"]
            tokens = F.layer_norm(tokens, tokens.shape[-1:], weight, bias)
            parts = (linear(s, f"{name}.{part}_t", tokens) for part in "qkv")
            positions.append(linear(s, f"{name}.proj_out_t", attend(*parts)))
        out = torch.stack(positions, dim=2)
    return x + out.permute(0, 3, 1, 2).reshape(x.shape)


def cv_mid(s, side, x, causal):
    x = cv_residual(s, f"{side}.mid.block_1", x, causal)
    x = cv_attention(s, f"{side}.mid.attn_1", x, time=side == "decoder")
    return cv_residual(s, f"{side}.mid.block_2", x, causal)


def cv_encode(s, clip):
    x = cv_convolve(s, "encoder.conv_in", clip.transpose(1, 2) * 2 - 1, True)
    for i in range(4):
        for j in range(2):
            x = cv_residual(s, f"encoder.down.{i}.block.{j}", x, True)
        if i < 3:
            x = F.pad(F.pad(x, (0, 1, 0, 1)), (0, 0, 0, 0, 2, 0), mode="replicate")
            name = f"encoder.down.{i}.downsample.conv"
            stride = (1, 2, 2) if i == 1 else 2
            x = F.conv3d(x, s[f"{name}.weight"], s[f"{name}.bias"], stride=stride)
    x = F.silu(cv_norm(s, "encoder.norm_out", cv_mid(s, "encoder", x, True)))
    return cv_convolve(s, "encoder.conv_out", x, True).chunk(2, dim=1)[0]


def cv_decode(s, latent):
    x = cv_mid(s, "decoder", cv_convolve(s, "decoder.conv_in", latent, False), False)
    for i in (3, 2, 1, 0):
        for j in range(3):
            x = cv_residual(s, f"decoder.up.{i}.block.{j}", x, False)
        if i:
            x = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
            x = F.pad(F.pad(x, (1, 1, 1, 1)), (0, 0, 0, 0, 1, 1), mode="replicate")
            name = f"decoder.up.{i}.upsample.conv"
            x = F.conv3d(x, s[f"{name}.weight"], s[f"{name}.bias"])
            if i != 2:
                even, odd = x.chunk(2, dim=1)
                pairs = zip(even.unbind(2), odd.unbind(2), strict=True)
                x = torch.stack([frame for pair in pairs for frame in pair][1:], dim=2)
    x = F.silu(cv_norm(s, "decoder.norm_out", x))
    return (cv_convolve(s, "decoder.conv_out", x, False).transpose(1, 2) + 1) / 2


def lean_layer(s, name, i, x, residual):
    weight = s[f"{name}.dconv_layer.{i}.ds_conv.weight"]
    bias = s[f"{name}.dconv_layer.{i}.ds_conv.bias"]
    padded = F.pad(x.permute(0, 4, 1, 2, 3), (1, 1, 1, 1, 2, 0))
    mixed = F.conv3d(padded, weight, bias, groups=len(weight)).permute(0, 2, 3, 4, 1)
    x = x + mixed if residual else mixed
    feed = f"{name}.ffd_layer.{i}"
    normed = F.layer_norm(
        x, x.shape[-1:], s[f"{feed}.0.weight"], s[f"{feed}.0.bias"], eps=1e-5
    )
    value, gate = F.linear(normed, s[f"{feed}.1.weight"]).chunk(2, dim=-1)
    fed = F.linear(value * F.gelu(gate), s[f"{feed}.4.weight"])
    return x + fed if residual else fed


def lean_stack(s, name, x, residual=True):
    i = 0
    while f"{name}.dconv_layer.{i}.ds_conv.weight" in s:
        x = lean_layer(s, name, i, x, residual)
        i += 1
    return x


def haar_kernels(kind):
    """Kernels (bands, 1, time, height, width) of plain signed sums."""
    plus, minus = torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])
    both = (plus, minus)
    if kind == "image":
        # The band's number counts the height fastest.
        products = [h[:, None] * w[None] for w in both for h in both]
        return torch.stack(products)[:, None, None]
    products = [
        t[:, None, None] * h[:, None] * w for t in both for h in both for w in both
    ]
    return torch.stack(products)[:, None]


def lean_tokens(s, x, kind):
    kernels = haar_kernels(kind)
    colours = [
        F.conv3d(c[:, None], kernels, stride=kernels.shape[2:]) for c in x.unbind(1)
    ]
    bands = torch.stack(colours, dim=2).flatten(1, 2)
    pt = 1 if kind == "image" else 2
    tokens = []
    for part, chosen in (("low", bands[:, :3]), ("high", bands[:, 3:])):
        patches = chosen.unfold(2, pt, pt).unfold(3, 4, 4).unfold(4, 4, 4)
        patches = patches.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4)
        tokens.append(linear(s, f"encoder.{kind}_{part}_proj.1", patches))
    return tokens


def lean_encode(s, clip):
    x = clip.transpose(1, 2) - 0.5
    groups = [lean_tokens(s, x[:, :, :1], "image")]
    if x.shape[2] > 1:
        groups.append(lean_tokens(s, x[:, :, 1:], "video"))
    low, high = (torch.cat(parts, dim=1) for parts in zip(*groups, strict=True))
    low = lean_stack(s, "encoder.low_layer", low)
    high = lean_stack(s, "encoder.high_layer", high)
    tokens = lean_stack(s, "encoder.fusion_layer", torch.cat([low, high], dim=-1))
    return (tokens @ s["latent_bottleneck.phi"].T).permute(0, 4, 1, 2, 3)


def lean_pixels(s, low, high, kind):
    pt = 1 if kind == "image" else 2
    parts = []
    for part, tokens in (("low", low), ("high", high)):
        patches = linear(s, f"decoder.{kind}_{part}_proj.0", tokens)
        patches = patches.unflatten(-1, (-1, pt, 4, 4)).permute(0, 4, 1, 5, 2, 6, 3, 7)
        b, c, t, _, h, _, w, _ = patches.shape
        parts.append(patches.reshape(b, c, t * pt, h * 4, w * 4))
    bands = torch.cat(parts, dim=1)
    kernels = haar_kernels(kind)
    size = kernels.shape[2:]
    colours = [
        F.conv_transpose3d(bands[:, c::3], kernels / kernels[0].numel(), stride=size)
        for c in range(3)
    ]
    return torch.cat(colours, dim=1)


def lean_decode(s, latent):
    y = latent.permute(0, 2, 3, 4, 1)
    phi, guess = s["latent_bottleneck.phi"], s["latent_bottleneck.Q"]
    tokens = y @ guess.T
    for i in range(2):
        step = s[f"latent_bottleneck.weights.{i}"]
        threshold = s[f"latent_bottleneck.threshold.{i}"]
        moved = tokens - step * (tokens @ phi.T - y) @ phi
        u = lean_stack(s, f"latent_bottleneck.forward_l.{i}", moved, residual=False)
        u = torch.sign(u) * (u.abs() - threshold).clamp_min(0)
        u = lean_stack(s, f"latent_bottleneck.backward_l.{i}", u, residual=False)
        tokens = moved + u
    tokens = lean_stack(s, "decoder.fusion_layer", tokens)
    width = len(s["decoder.low_layer.dconv_layer.0.ds_conv.weight"])
    low = lean_stack(s, "decoder.low_layer", tokens[..., :width])
    high = lean_stack(s, "decoder.high_layer", tokens[..., width:])
    frames = [lean_pixels(s, low[:, :1], high[:, :1], "image")]
    if latent.shape[2] > 1:
        frames.append(lean_pixels(s, low[:, 1:], high[:, 1:], "video"))
    return torch.cat(frames, dim=2).transpose(1, 2) + 0.5


# The tests


def save(tmp_path, content, name="released.ckpt"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def assert_agrees(result, expected):
    assert result.shape == expected.shape
    error = (result - expected).abs().max() / expected.abs().max()
    assert error < 1e-4, error


@pytest.mark.parametrize("half_3d", [True, False])
@torch.no_grad()
def test_cvvae_computes_what_its_published_weights_mean(tmp_path, half_3d):
    state = random_state(cv_shapes(half_3d=half_3d))
    backbone = CVVAE(4, WIDTH, half_3d=half_3d)
    report = init_from(backbone, save(tmp_path, state))
    assert "released weights of CV-VAE: 254 of 254 weights loaded" in report
    assert "left out of the file: variance of encoder.conv_out (2)" in report
    clip = torch.rand(1, 9, 3, 16, 24)
    latent = backbone.encode(clip)
    assert_agrees(latent, cv_encode(state, clip))
    assert_agrees(backbone.decode(latent), cv_decode(state, latent))


@pytest.mark.parametrize("frames", [1, 9])
@torch.no_grad()
def test_leanvae_computes_what_its_published_weights_mean(tmp_path, frames):
    state = random_state(lean_shapes())
    backbone = LeanVAE(5, LEAN)
    content = {"state_dict": state, "args": {"latent_dim": 5}}
    report = init_from(backbone, save(tmp_path, content))
    count = len(state) - 2
    assert f"released weights of LeanVAE: {count} of {count} weights loaded" in report
    assert "left out of the file: std_layer (2)" in report
    clip = torch.rand(2, frames, 3, 24, 40)
    latent = backbone.encode(clip)
    assert_agrees(latent, lean_encode(state, clip))
    assert_agrees(backbone.decode(latent), lean_decode(state, latent))


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("cv_vae", cv_shapes(128, 4)),
        ("lean_vae", lean_shapes(LeanVAEWidths(128, 384, 2, 4, 2, 2), 4)),
    ],
)
def test_the_published_sizes_are_the_papers(name, shapes):
    with torch.device("meta"):
        backbone = build_backbone(name, "paper", 4)
        given = {key: torch.empty(shape) for key, shape in shapes.items()}
    wanted = backbone.state_dict()
    released = find_released(given).for_network(wanted)
    assert {k: v.shape for k, v in released.items()} == {
        k: v.shape for k, v in wanted.items()
    }
    norms = [m for m in backbone.modules() if isinstance(m, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == ({32} if name == "cv_vae" else set())
    # Published: 182 M and 39.8 M, with the heads that are left out.
    millions = sum(tensor.numel() for tensor in given.values()) / 1e6
    assert round(millions, 2) == {"cv_vae": 182.45, "lean_vae": 39.77}[name]


class Codec(nn.Module):
    """A codec as far as weights are concerned."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.latent_codec = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("state", "backbone"),
    [
        (cv_shapes(), CVVAE(16, WIDTH)),
        (lean_shapes(), LeanVAE(16, LEAN)),
    ],
)
def test_with_another_latent_only_what_touches_it_stays_new(tmp_path, state, backbone):
    codec = Codec(backbone)
    before = {key: value.clone() for key, value in codec.state_dict().items()}
    report = init_from(codec, save(tmp_path, random_state(state)))
    after = codec.state_dict()
    same = {key for key, value in before.items() if torch.equal(value, after[key])}
    latent = {
        f"backbone.{name}" for name in LATENT_LAYERS if f"backbone.{name}" in before
    }
    assert same == latent | {"latent_codec.weight", "latent_codec.bias"}
    line = next(line for line in report.splitlines() if "newly initialised" in line)
    assert all(key in line for key in latent)
    assert "2 missing: latent_codec.bias, latent_codec.weight" in report


def test_a_training_checkpoint_gives_the_model_alone(tmp_path):
    state = random_state(lean_shapes())
    wrapped = {f"autoencoder.{key}": value for key, value in state.items()}
    wrapped["perceptual_model.net.weight"] = torch.zeros(3)
    wrapped["gan_loss.discriminator.main.0.weight"] = torch.zeros(3)
    wrapped["gan_loss.discriminator.main.0.bias"] = torch.zeros(3)
    backbones = [LeanVAE(5, LEAN), LeanVAE(5, LEAN)]
    init_from(backbones[0], save(tmp_path, {"state_dict": state}))
    path = save(tmp_path, {"state_dict": wrapped, "epoch": 3}, "training.ckpt")
    report = init_from(backbones[1], path)
    assert "gan_loss (2), perceptual_model (1), std_layer (2)" in report
    for key, value in backbones[0].state_dict().items():
        assert torch.equal(value, backbones[1].state_dict()[key]), key


def test_a_model_beside_another_with_a_longer_name_is_found():
    state = {k: torch.zeros(v) for k, v in cv_shapes().items()}
    state["constraint_decoder.up.0.block.0.conv1.weight"] = torch.zeros(1)
    released = find_released({key: state[key] for key in reversed(state)})
    assert released.left_out["constraint_decoder"] == 1
    assert "encoder.first.weight" in released.weights


@pytest.mark.parametrize(
    ("shapes", "backbone", "message"),
    [
        (cv_shapes(), LeanVAE(4, LEAN), "CV-VAE.*have cv_vae as its backbone"),
        (lean_shapes(), CVVAE(4, WIDTH), "LeanVAE.*have lean_vae as its backbone"),
        (cv_shapes(2 * WIDTH), CVVAE(4, WIDTH), "paper's size"),
        (cv_shapes(), CVVAE(4, WIDTH, half_3d=False), r"conv2\.weight.*same half_3d"),
        (cv_shapes(half_3d=False), CVVAE(4, WIDTH), r"conv2\.weight.*same half_3d"),
        (
            {"encoder.down_blocks.0.resnets.0.conv1.weight": (1,)},
            CVVAE(4, WIDTH),
            "vae3d_sd3.*vae3d_v1-1",
        ),
    ],
)
def test_published_weights_of_another_network_are_refused(
    tmp_path, shapes, backbone, message
):
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=f"released.ckpt: .*{message}"):
        init_from(backbone, save(tmp_path, random_state(shapes)))
    assert all(torch.equal(before[k], v) for k, v in backbone.state_dict().items())


def test_published_weights_with_a_missing_layer_are_refused(tmp_path):
    state = random_state(lean_shapes())
    del state["encoder.low_layer.ffd_layer.1.0.weight"]
    with pytest.raises(ValueError, match=r"1 of them .*encoder\.low\.1\.norm\.weight"):
        init_from(LeanVAE(5, LEAN), save(tmp_path, state))


def test_a_file_with_python_objects_is_refused_with_advice(tmp_path):
    content = {
        "state_dict": random_state(lean_shapes()),
        "hyper_parameters": argparse.Namespace(lr=1),
    }
    path = save(tmp_path, content)
    with pytest.raises(ValueError, match=r"argparse\.Namespace.*convert it once: "):
        init_from(LeanVAE(5, LEAN), path)
    torch.save(torch.load(path, weights_only=False)["state_dict"], path)
    assert "weights loaded" in init_from(LeanVAE(5, LEAN), path)


def test_a_file_that_is_no_state_dict_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds a list, not a state dict"):
        init_from(LeanVAE(5, LEAN), save(tmp_path, [torch.zeros(1)]))


def safetensors(state, dtype=torch.float16):
    """The bytes of a file of published weights, written from the format's text."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for key, value in state.items():
        raw = value.to(dtype).numpy().tobytes()
        header[key] = {
            "dtype": "F16",
            "shape": list(value.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def test_weights_of_a_safetensors_file_are_loaded(tmp_path):
    state = random_state(lean_shapes())
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    path.write_bytes(safetensors(state))
    backbone = LeanVAE(5, LEAN)
    assert "released weights of LeanVAE" in init_from(backbone, path)
    phi = state["latent_bottleneck.phi"].half().float()
    assert torch.equal(backbone.encoder.sensing.weight, phi)
    step = state["latent_bottleneck.weights.1"].half().float()
    assert torch.equal(backbone.decoder.iterations[1].step, step)


@pytest.mark.parametrize("length", [4, 200, -1])
def test_a_damaged_safetensors_file_is_refused(tmp_path, length):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors(random_state(lean_shapes()))[:length])
    with pytest.raises(ValueError, match=r"model\.safetensors: not a whole"):
        init_from(LeanVAE(5, LEAN), path)
