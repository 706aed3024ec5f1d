"""How UI2C trains unit after unit, and divided models one after the other."""

import pytest
import torch

from lightning_modules import UI2C
from lightning_modules.stages import Stage
from lightning_modules.ui2c.module import FRAME_WEIGHTS

DIVIDED = {"frames_per_unit": 1, "divided": True, "hybrid_references": False}


@pytest.fixture
def start(lively_module):
    """Return a module that has started a stage."""

    def of(arguments=None, **row):
        module = lively_module("UI2C", size="tiny", **(arguments or {}))
        row = {"steps": 9, "frames": 7, **row}
        module.start_stage(Stage("row", **row), 0, 1, 0)
        return module.train()

    return of


def noise(batch, frames, side=32):
    generator = torch.Generator().manual_seed(frames)
    return torch.rand(batch, frames, 3, side, side, generator=generator)


def draw_of(module, frames, batch=2):
    return module.draw(noise(batch, frames), torch.arange(batch), training=True)


# Unit after unit


@pytest.mark.parametrize(
    ("arguments", "frames"), [({}, 7), ({}, 6), ({"frames_per_unit": 1}, 4)]
)
def test_units_apart_are_what_the_clip_is(start, arguments, frames):
    module = start(arguments, frames=frames, unroll="unit")
    draw = draw_of(module, frames)
    given = draw.clip, draw.rate
    whole = module.codec(*given, **draw.conditions)
    units = list(module.codec.forward_units(*given, **draw.conditions))
    assert len(units) == module.steps_per_batch
    torch.testing.assert_close(torch.cat([u.x_hat for u in units], 1), whole.x_hat)
    torch.testing.assert_close(torch.cat([u.bits for u in units], 1), whole.bits)


def test_no_gradient_goes_from_a_unit_to_those_before_it(start):
    module = start(unroll="unit")
    draw = draw_of(module, 7)
    clip = draw.clip.requires_grad_()
    units = module.codec.forward_units(clip, draw.rate, **draw.conditions)
    touched = []
    for unit in units:
        clip.grad = None
        # All of them take the clip's colours from one conversion.
        unit.x_hat.square().sum().backward(retain_graph=True)
        touched.append(clip.grad.flatten(2).any(2).any(0).tolist())
    one, other = [True, True], [False, False]
    assert touched == [
        one + other + other,
        other + one + other,
        other + other + one,
    ]
    # While through the whole clip it does.
    clip.grad = None
    out = module.codec(clip, draw.rate, **draw.conditions)
    out.x_hat[:, 4:].square().sum().backward()
    assert clip.grad.flatten(2).any(2).all()


def test_every_weight_has_a_gradient_in_every_unit(start):
    # Data-parallel training waits for it.
    module = start(unroll="unit", frozen=["network.recon_out"])
    draw = draw_of(module, 7)
    start_of_unit = 0
    for out in module.codec.forward_units(draw.clip, draw.rate, **draw.conditions):
        stop = start_of_unit + out.x_hat.shape[1]
        module.zero_grad()
        own = draw.between(start_of_unit, stop)
        module.loss(module.terms(own, out)).backward()
        for name, parameter in module.codec.named_parameters():
            assert (parameter.grad is None) == name.startswith("network.recon_out")
        start_of_unit = stop


def test_a_draw_can_be_cut_to_some_of_its_frames(start):
    draw = draw_of(start(), 7)
    part = draw.between(2, 4)
    assert torch.equal(part.clip, draw.clip[:, 2:4])
    assert torch.equal(part.frame_weights, draw.frame_weights[:, 2:4])
    assert torch.equal(part.rate, draw.rate) and part.conditions is draw.conditions
    for name, mask in draw.groups.items():
        assert torch.equal(part.groups[name], mask[:, 2:4])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("DHVC", {}),
        ("DualDomain", {}),
        ("ScaleSpaceFlow", {}),
        ("VideoVAE", {"lpips": "random"}),
    ],
)
def test_codecs_that_need_whole_clips_refuse_units(lively_module, name, arguments):
    module = lively_module(name, size="tiny", **arguments)
    row = Stage("row", 1, 9, unroll="unit")
    message = f"stage 'row': unroll is 'unit', but {name} trains on whole clips only"
    with pytest.raises(ValueError, match=message):
        module.start_stage(row, 0, 1, 0)


# Refreshes


def test_training_draws_refreshes_only_where_a_stage_asks_for_them(start):
    assert "refresh_unit" not in draw_of(start(), 7).conditions
    module = start(options={"train_refresh": True})
    draw = draw_of(module, 7, batch=30)
    assert set(draw.conditions["refresh_unit"].tolist()) == {1, 2, 3}
    given = draw.clip, draw.rate
    refreshed = module.codec(*given, **draw.conditions)
    never = torch.full_like(draw.rate, -1)
    followed = module.codec(*given, **{**draw.conditions, "refresh_unit": never})
    assert torch.equal(refreshed.x_hat[:, :2], followed.x_hat[:, :2])
    differs = (refreshed.x_hat != followed.x_hat).flatten(2).any(2)
    unit = draw.conditions["refresh_unit"]
    assert torch.equal(differs[:, 2], unit == 1)
    assert torch.equal(differs[:, 5], unit <= 2)


# Rates


def test_a_stage_draws_the_rates_that_it_names(start):
    rates = draw_of(start(options={"qps": [3, 5]}), 7, batch=30).rate
    assert set(rates.tolist()) == {3, 4, 5}
    every = draw_of(start(options={"qps": [0, 63]}), 7, batch=30).rate
    assert torch.equal(every, draw_of(start(), 7, batch=30).rate)


# Divided models


def test_an_image_stage_trains_an_image_model_as_such(start):
    row = {"frames": 1, "trainable": ["intra"]}
    options = {"lmbda_range": [10, 2048]}
    module = start(DIVIDED, **row, options=options)
    draw = draw_of(module, 1, batch=40)
    assert draw.clip.shape[1] == 1 and "first" not in draw.conditions
    # Not 0.5, which is of a place in a group of inter frames.
    assert (draw.frame_weights == 1).all()
    ends = module.lmbda(torch.tensor([0, 63]))
    torch.testing.assert_close(ends, torch.tensor([10.0, 2048.0]))
    torch.testing.assert_close(draw.lmbda, module.lmbda(draw.rate))
    out = module.codec(draw.clip, draw.rate, **draw.conditions)
    module.loss(module.terms(draw, out)).backward()
    for name, parameter in module.codec.named_parameters():
        trained = name.startswith("intra.")
        assert (parameter.grad is not None) == parameter.requires_grad == trained


def test_a_frozen_image_model_is_neither_trained_nor_counted(start):
    module = start(DIVIDED, frames=4, frozen=["intra"])
    clip = noise(2, 4)
    draw = module.draw(clip, torch.arange(2), training=True)
    assert torch.equal(draw.clip, clip[:, 1:])
    assert torch.equal(draw.conditions["first"], clip[:, :1])
    # The frame after the image is the second of its group.
    expected = torch.tensor(FRAME_WEIGHTS[1:4]).expand(2, 3)
    assert torch.equal(draw.frame_weights, expected)
    ends = module.lmbda(torch.tensor([0, 63]))
    torch.testing.assert_close(ends, torch.tensor([1.0, 768.0]))
    out = module.codec(draw.clip, draw.rate, **draw.conditions)
    assert out.x_hat.shape == draw.clip.shape and out.bits.shape == (2, 3)
    module.loss(module.terms(draw, out)).backward()
    assert all(p.grad is None for p in module.codec.intra.parameters())
    assert module.codec.network.encoder_down.weight.grad.any()
    # The same frames, coded from the image on, as when all of them count.
    with torch.no_grad():
        seeds = draw.conditions["seeds"]
        whole = module.codec(clip, draw.rate, seeds=seeds)
    torch.testing.assert_close(out.x_hat, whole.x_hat[:, 1:])
    torch.testing.assert_close(out.bits, whole.bits[:, 1:])


def test_validation_counts_the_image_too(start):
    module = start(DIVIDED, frames=4, frozen=["intra"])
    draw = module.draw(noise(1, 4), torch.arange(1), training=False)
    assert draw.clip.shape[1] == 4 and draw.conditions == {}
    assert draw.frame_weights.tolist() == [pytest.approx([1.0, *FRAME_WEIGHTS[1:4]])]


def test_an_image_stage_is_validated_by_its_images_alone(start):
    clip, seeds = noise(1, 4), torch.arange(1)
    module = start(DIVIDED, frames=1, trainable=["intra"])
    draw = module.draw(clip, seeds, training=False)
    assert torch.equal(draw.clip, clip[:, :1])
    assert draw.frame_weights.tolist() == [[1.0]]
    together = start(DIVIDED, frames=4).draw(clip, seeds, training=False)
    assert torch.equal(together.clip, clip)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"frames": 1, "frozen": ["intra"]}, "codes the only frame: set frames to at"),
        ({"frames": 3, "unroll": "unit"}, "trains both models and steps after each"),
        (
            {"options": {"lmbda_range": [5]}},
            r"'row': lmbda_range is \[5\]: .*be above 0",
        ),
        ({"options": {"lmbda_range": [0, 5]}}, "must be above 0, the first not above"),
        ({"options": {"lmbda_range": 5}}, "lmbda_range is 5: "),
        ({"options": {"qps": [9, 8]}}, r"qps is \[9, 8\]: .*from 0 to 63"),
        ({"options": {"qps": [0, 64]}}, r"qps is \[0, 64\]: "),
        ({"options": {"qps": 8}}, "qps is 8: "),
        (
            {"options": {"train_refresh": 64}},
            "train_refresh is 64: it is true or false",
        ),
    ],
)
def test_a_row_that_cannot_train_divided_models_is_refused(row, message):
    module = UI2C(size="tiny", **DIVIDED)
    with pytest.raises(ValueError, match=message):
        module.start_stage(Stage("row", 1, **{"frames": 3, **row}), 0, 1, 0)
