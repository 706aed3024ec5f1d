"""DHVC in training: gradients of every scale, noise, what a step logs."""

from types import SimpleNamespace

import pytest
import torch

from lightning_modules import DHVC
from lightning_modules.dhvc.codec import DHVCCodec
from lightning_modules.stages import Stage


def test_every_scale_carries_gradients_of_rate_and_of_distortion(dhvc):
    module = DHVC(size="tiny")
    module.train()
    clip = dhvc.scene(2, 64, 64)[None]
    draw = module.draw(clip, torch.tensor([4]), training=True)
    for scale in range(1, 5):
        block = module.codec.network.scale(scale)[0]
        for term in ("rate", "distortion"):
            module.zero_grad()
            out = module.codec(draw.clip, draw.rate, **draw.conditions)
            module.terms(draw, out)[term].backward()
            for layer in (block.posterior[1], block.from_observed.reduce):
                assert layer.weight.grad.any(), (scale, term)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_the_bits_of_a_scale_do_not_depend_on_finer_ones(dhvc, scale):
    codec = dhvc.lively(auxiliary=False).train()
    out = codec(dhvc.scene(3, 64, 64)[None], torch.tensor([512.0]))
    out.parts[f"scale{scale}"].sum().backward()
    for number in range(1, 5):
        gradient = codec.network.scale(number)[0].posterior[1].weight.grad
        assert bool(gradient.any()) == (number <= scale)


@pytest.mark.parametrize("recipe", ["size", "paper"])
def test_a_tiny_network_trains_by_either_recipe(dhvc, recipe):
    torch.manual_seed(0)
    module = DHVC(size="tiny", recipe=recipe, auxiliary=False)
    module.stage = Stage("one", 1, 1, lr=3e-3)
    optimizer = module.configure_optimizers()["optimizer"]
    clip, losses = dhvc.scene(1, 64, 64)[None], []
    draw = module.draw(clip, torch.tensor([4]), training=True)
    for _ in range(15):
        out = module.codec(draw.clip, draw.rate, **draw.conditions)
        loss = module.loss(module.terms(draw, out))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.75 * losses[0]


def test_taps_that_reach_beyond_every_crop_are_silent(dhvc):
    module = DHVC(size="tiny")
    module.train()
    draw = module.draw(dhvc.scene(2, 64, 64)[None], torch.tensor([4]), training=True)
    out = module.codec(draw.clip, draw.rate, **draw.conditions)
    module.loss(module.terms(draw, out)).backward()
    # At 1/32 the crop has 2 x 2 positions: of the taps 3 apart only one meets any.
    near, far, _ = module.codec.network.scale(2)[0].predictor[1].attention
    for conv, reached in ((near, 1), (far, 0)):
        centre = conv.kernel_size[0] // 2
        inside = slice(centre - reached, centre + reached + 1)
        for values in (conv.weight.grad, conv.weight.data):
            values = values.clone()
            assert values[..., centre, centre].any()
            values[..., inside, inside] = 0
            assert not values.any()


def test_the_rate_of_training_is_noisy_and_the_same_for_the_same_seed(dhvc):
    module = DHVC(size="tiny")
    module.train()
    clip = dhvc.scene(1, 64, 64)[None]
    rate = torch.tensor([512.0])
    bits = [
        module.codec(clip, rate, seeds=torch.tensor([seed])).bits for seed in (1, 1, 2)
    ]
    assert torch.equal(bits[0], bits[1])
    assert not torch.equal(bits[0], bits[2])
    module.codec.eval()
    rounded = [module.codec(clip, rate).bits for _ in range(2)]
    assert torch.equal(*rounded)


def test_scales_of_one_frame_and_frames_of_one_scale_share_no_noise(monkeypatch):
    streams = []

    def record(like, seeds, stream):
        streams.append(stream)
        return torch.zeros_like(like)

    monkeypatch.setattr("lightning_modules.entropy.ports.uniform_noise", record)
    for structure, latents in (("dhvc2", 4), ("dhvc1", 5)):
        streams.clear()
        codec = DHVCCodec("tiny", structure=structure)
        codec.train()(torch.rand(1, 3, 3, 64, 64), torch.tensor([512.0]))
        assert len(streams) == len(set(streams)) == 3 * latents


def test_a_step_logs_the_bits_of_each_scale(dhvc):
    module = DHVC(size="tiny")
    module.start_stage(Stage("one_frame", 1, 1), 0, 1, 0)
    logged = {}

    module._trainer = SimpleNamespace(
        global_step=0,
        loggers=[],
        world_size=1,
        optimizers=[torch.optim.SGD(module.parameters(), 0.1)],
        strategy=SimpleNamespace(reduce=lambda totals, reduce_op: totals),
    )
    module.log_dict = lambda figures, **_: logged.update(figures)
    clip = dhvc.scene(2, 64, 64)[None]
    draw = module.draw(clip, torch.tensor([4]), training=True)
    out = module.codec(draw.clip, draw.rate, **draw.conditions)
    module._note(draw, out, module.terms(draw, out))
    module._log_interval(1)
    scales = [logged[f"train/scale{n}/bpp"] for n in range(1, 5)]
    assert sum(scales) == pytest.approx(logged["train/bpp"], rel=1e-5)
    assert logged["train/first/bpp"] == pytest.approx(
        float(out.bits[0, 0].detach() / 64**2)
    )


def test_layers_outside_of_blocks_may_learn_slower():
    module = DHVC(size="tiny", maps_rate=0.1)
    module.stage = Stage("one", 1, 1, lr=1e-3)
    names = {id(p): name for name, p in module.codec.network.named_parameters()}
    found = {
        names[id(p)]: group.get("lr", module.stage.lr)
        for group in module.weight_groups()
        for p in group["params"]
    }
    assert found.keys() == set(names.values())
    assert found["encoder.stem.weight"] == pytest.approx(1e-4)
    assert found["scale2.0.restore.weight"] == pytest.approx(1e-4)
    assert found["scale2.0.predictor.1.mlp.0.weight"] == 1e-3
    assert found["tail.blocks.0.gain"] == 1e-3
    assert found["embedding.layers.0.weight"] == pytest.approx(1e-5)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_of_maps_that_teaches_nothing_is_refused(rate):
    with pytest.raises(ValueError, match="maps_rate is"):
        DHVC(size="tiny", maps_rate=rate)
