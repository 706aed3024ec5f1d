"""What a scale of DHVC sees of other frames: references, and the auxiliary path."""

import pytest
import torch


def seen_by(codec, scale, clip):
    """Return what the predictor of a scale got for each frame: S, then references."""
    seen = []
    block = codec.network.scale(scale)[0]
    hook = block.predictor.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].clone())
    )
    with torch.inference_mode():
        codec(clip[None], torch.tensor([512.0]))
    hook.remove()
    width = codec.network.scale(scale)[0].restore.out_channels
    return [frame.split(width, dim=1) for frame in seen], block


@pytest.mark.parametrize("scale", [1, 4])
def test_references_are_the_two_last_frames_oldest_first(dhvc, parallel, scale):
    decoded = []
    block = parallel.network.scale(scale)[0]
    hook = block.decode.register_forward_hook(
        lambda module, inputs, output: decoded.append(output.clone())
    )
    frames, block = seen_by(parallel, scale, dhvc.scene(4))
    hook.remove()
    constant = block.temporal_constant.expand_as(decoded[0])
    expected = [
        (constant, constant),
        (constant, decoded[0]),
        (decoded[0], decoded[1]),
        (decoded[1], decoded[2]),
    ]
    for (_, *slots), wanted in zip(frames, expected, strict=True):
        assert len(slots) == 2
        assert all(torch.equal(a, b) for a, b in zip(slots, wanted, strict=True))


def test_five_reference_frames_are_five_slots(dhvc):
    codec = dhvc.lively(auxiliary=False, reference_frames=5)
    frames, block = seen_by(codec, 2, dhvc.scene(7))
    counts = [
        sum(torch.equal(s, block.temporal_constant.expand_as(s)) for s in slots)
        for _, *slots in frames
    ]
    assert counts == [5, 4, 3, 2, 1, 0, 0]


def test_the_spatial_path_and_the_posterior_see_no_other_frame(dhvc, parallel):
    clip = dhvc.scene(2)
    other = clip.clone()
    other[0] = 1 - clip[0]
    mus, priors = [], []
    block = parallel.network.scale(1)[0]
    hooks = [
        block.posterior.register_forward_hook(lambda m, i, o: mus.append(o)),
        block.prior.register_forward_hook(lambda m, i, o: priors.append(o)),
    ]
    for frames in (clip, other):
        with torch.inference_mode():
            parallel(frames[None], torch.tensor([512.0]))
    for hook in hooks:
        hook.remove()
    assert torch.equal(mus[1], mus[3])
    assert not torch.equal(priors[1], priors[3])


def test_the_auxiliary_path_sees_clamped_pixels_in_training_and_coding(dhvc):
    codec = dhvc.lively()
    codec.network.tail.out.bias.data += 2.0
    seen = []
    codec.network.auxiliary.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].detach())
    )
    clip = dhvc.scene(3)
    codec.train()
    out = codec(clip[None], torch.tensor([512.0]))
    assert out.x_hat.max() > 1.5
    codec.eval()
    list(codec.compress(clip, 512))
    assert len(seen) == 4
    for pixels in seen:
        assert pixels.min() >= -1 and pixels.max() == 1
