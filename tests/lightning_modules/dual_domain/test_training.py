"""DualDomain's training: its losses, its rows, its learning rates."""

import math
from pathlib import Path

import pytest
import torch
import yaml

from lightning_modules.dual_domain.design import lagrangian
from lightning_modules.dual_domain.module import DualDomain
from lightning_modules.stages import Stage

CONFIGS = Path(__file__).parents[3] / "experiments" / "configs"


def test_lambda_spans_its_range_geometrically():
    ends = lagrangian(torch.tensor([0.0, 0.5, 1.0]))
    expected = [65025 * v for v in (0.0018, math.sqrt(0.0018 * 0.0483), 0.0483)]
    torch.testing.assert_close(ends, torch.tensor(expected))


def rows_of(*names):
    files = [CONFIGS / f"{name}.yaml" for name in ("dual_domain", *names)]
    loaded = [yaml.safe_load(file.read_text()) for file in files]
    arguments, rows = {}, []
    for entry in loaded:
        arguments |= entry.get("model", {}).get("init_args", {})
        rows = entry.get("stages", rows)
    return {**arguments, "size": "tiny"}, [Stage(**row) for row in rows]


@pytest.mark.parametrize(
    "ablation",
    [
        None,
        "ablations/dual_domain/no_pixel_alignment",
        "ablations/dual_domain/separate_transforms",
    ],
)
def test_every_row_gives_what_it_trains_a_gradient(dual_domain, ablation):
    arguments, rows = rows_of(*([ablation] if ablation else []))
    torch.manual_seed(0)
    module = DualDomain(**arguments).train()
    for parameter in module.codec.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    clip = dual_domain.scene(8, 64, 64).reshape(2, 4, 3, 64, 64)
    for number, row in enumerate(rows):
        module.start_stage(row, number, len(rows), 0)
        module.zero_grad(set_to_none=True)
        draw = module.draw(clip[:, : row.frames], torch.tensor([3, 4]), training=True)
        out = module.codec(draw.clip, draw.rate, **draw.conditions)
        loss = module.loss(module.terms(draw, out))
        loss.backward()
        dead = [
            name
            for name, parameter in module.codec.named_parameters()
            if parameter.requires_grad
            and (parameter.grad is None or not parameter.grad.any())
        ]
        assert dead == [], row.name
        assert loss.isfinite(), row.name


def test_the_prior_learns_from_latents_as_they_are(dual_domain):
    torch.manual_seed(0)
    module = DualDomain(size="tiny").train()
    clip = dual_domain.scene(3)[None]
    row = Stage("prior", 1, 3, options={"objective": "prior"})
    module.start_stage(row, 0, 1, 0)
    draw = module.draw(clip, torch.tensor([3]), training=True)
    conditions = {"quality": draw.conditions["quality"]}
    trained = module.codec(clip, draw.rate, seeds=torch.tensor([3]), **conditions)
    module.codec.configure(mode_decision="inter")
    coded = module.codec.eval()(clip, draw.rate, **conditions)
    torch.testing.assert_close(
        trained.parts["latent"], coded.parts["latent"], rtol=1e-3, atol=1.0
    )
    assert not trained.x_hat.requires_grad
    module.codec.train()
    weights = [0.3, 1.0, 1.0]
    expected = (trained.bits * torch.tensor(weights)).mean() / clip[0, 0, 0].numel()
    rate = module.terms(draw, trained)["rate"]
    torch.testing.assert_close(rate, expected)


def test_experts_learn_ten_times_as_fast():
    module = DualDomain(size="tiny")
    module.start_stage(Stage("row", 10, 1, lr=1e-4, warmup=2), 0, 1, 0)
    optimizer = module.configure_optimizers()["optimizer"]
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([1e-4 / 2, 1e-3 / 2])
    counts = [sum(p.numel() for p in g["params"]) for g in optimizer.param_groups]
    network = module.codec.network
    experts = [network.encoder_steps.experts, network.decoder_steps.experts]
    assert counts[1] == sum(p.numel() for e in experts for p in e.parameters())
    assert sum(counts) == sum(p.numel() for p in network.parameters())
    # Rehearsals' rates are large enough for everyone.
    module.start_stage(Stage("row", 10, 1, lr=1e-2), 0, 1, 0)
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert [group["lr"] for group in groups] == [1e-2, 1e-2]
    module.start_stage(Stage("row", 1, 1, trainable=["network.flow"]), 0, 1, 0)
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert len(groups) == 1


def test_qualities_differ_from_frame_to_frame_and_weigh_by_their_lambda():
    module = DualDomain(size="tiny")
    clip = torch.rand(200, 3, 3, 16, 16)
    draw = module.draw(clip, torch.arange(200), training=True)
    quality = draw.conditions["quality"]
    assert quality.min() == 0 and quality.max() == 1
    assert 0.4 < float(draw.rate.mean()) < 0.6
    spread = (quality - draw.rate[:, None]).abs()
    assert 0.03 < float(spread.mean()) < 0.07 and spread.max() <= 0.1 + 1e-6
    torch.testing.assert_close(
        draw.frame_weights * draw.lmbda[:, None], lagrangian(quality)
    )


@pytest.mark.parametrize(
    ("row", "arguments", "message"),
    [
        ({"options": {"objectiv": "flow"}}, {}, "objectiv"),
        ({"options": {"objective": "flows"}}, {}, "flows"),
        ({"options": {"objective": "flow"}}, {"pixel_alignment": False}, "no flow"),
        ({"trainable": ["network.flows"]}, {}, "network.flows"),
        ({"weights": {"warp": 1.0}}, {}, "warp"),
    ],
)
def test_a_misspelt_row_is_refused(row, arguments, message):
    module = DualDomain(size="tiny", **arguments)
    with pytest.raises(ValueError, match=message):
        module.start_stage(Stage("row", 1, 3, **row), 0, 1, 0)
