"""Published weights of CV-VAE and LeanVAE: what the networks compute with them.

What they compute is written here once more, plainly, reading the published names; the
backbones must agree with it.
"""

import pytest
import torch
import torch.nn.functional as F

from experiments.fit.weights import init_from
from lightning_modules.video_vae.cv_vae import CVVAE
from lightning_modules.video_vae.lean_vae import LeanVAE


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


def assert_agrees(result, expected):
    assert result.shape == expected.shape
    error = (result - expected).abs().max() / expected.abs().max()
    assert error < 1e-4, error


@pytest.mark.parametrize("half_3d", [True, False])
@torch.no_grad()
def test_cvvae_computes_what_its_published_weights_mean(released, tmp_path, half_3d):
    state = released.random_state(released.cv_shapes(half_3d=half_3d))
    backbone = CVVAE(4, released.WIDTH, half_3d=half_3d)
    report = init_from(released.Codec(backbone), released.save(tmp_path, state))
    assert "released weights of CV-VAE: 254 of 254 weights loaded" in report
    assert "left out of the file: variance of encoder.conv_out (2)" in report
    clip = torch.rand(1, 9, 3, 16, 24)
    latent = backbone.encode(clip)
    assert_agrees(latent, cv_encode(state, clip))
    assert_agrees(backbone.decode(latent), cv_decode(state, latent))


@pytest.mark.parametrize("frames", [1, 9])
@torch.no_grad()
def test_leanvae_computes_what_its_published_weights_mean(released, tmp_path, frames):
    state = released.random_state(released.lean_shapes())
    backbone = LeanVAE(5, released.LEAN)
    content = {"state_dict": state, "args": {"latent_dim": 5}}
    report = init_from(released.Codec(backbone), released.save(tmp_path, content))
    count = len(state) - 2
    assert f"released weights of LeanVAE: {count} of {count} weights loaded" in report
    assert "left out of the file: std_layer (2)" in report
    clip = torch.rand(2, frames, 3, 24, 40)
    latent = backbone.encode(clip)
    assert_agrees(latent, lean_encode(state, clip))
    assert_agrees(backbone.decode(latent), lean_decode(state, latent))
