"""DualDomain's training: its losses, its rows, its learning rates."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from lightning_modules.dual_domain.design import lagrangian
from lightning_modules.dual_domain.estimation import Clip, estimate_clip
from lightning_modules.dual_domain.module import DualDomain
from lightning_modules.dual_domain.packets import QUALITY_STEPS
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


FLOW = {
    **{"name": "flow", "steps": 4, "frames": 2, "crop": 32, "batch_size": 2},
    **{"lr": 1e-3, "trainable": ["network.flow"], "options": {"objective": "flow"}},
    "weights": {"rate": 0.0, "distortion": 0.0},
}
MOTION = {
    **FLOW,
    "name": "motion",
    "trainable": ["network.flow", "network.motion_encoder", "network.motion_decoder"],
    "options": {"objective": "motion"},
    "weights": {"distortion": 0.15, "flow_distillation": 0.02},
}


@torch.no_grad()
def test_what_a_row_trains_is_what_validates_it_without_noise(dual_domain):
    torch.manual_seed(0)
    module = DualDomain(size="tiny").eval()
    clip = dual_domain.scene(6, 64, 64).reshape(2, 3, 3, 64, 64)
    draw = module.draw(clip, torch.tensor([3, 4]), training=False)
    quality = draw.rate[:, None].expand(-1, 3)
    quality = (quality * QUALITY_STEPS).round() / QUALITY_STEPS
    losses = {}
    for row in (FLOW, MOTION):
        module.start_stage(Stage(**row), 0, 1, 0)
        out = module.codec(clip, draw.rate)
        losses[row["name"]] = module.loss(module.terms(draw, out))
        own = Clip(clip, quality, None, module.codec.weighed_terms)
        expected = estimate_clip(module.codec.network, own, row["name"], False)
        warped = torch.stack(expected.pixels, dim=1).clamp(0, 1)
        torch.testing.assert_close(out.x_hat, warped)
        terms = module.terms(draw, replace(out, x_hat=warped, terms=expected.terms))
        torch.testing.assert_close(losses[row["name"]], module.loss(terms))
        assert losses[row["name"]] > 0
        again = module.codec(clip, draw.rate)
        assert torch.equal(module.loss(module.terms(draw, again)), losses[row["name"]])
    assert out.parts["latent"].sum() == 0 and out.parts["motion"][:, 1:].min() > 0
    row = Stage("image", 1, 1, options={"objective": "image"})
    module.start_stage(row, 0, 1, 0)
    assert module.codec(clip, draw.rate).parts["motion"].sum() == 0


def test_a_row_that_decodes_nothing_has_a_loss_and_a_best_but_no_metrics(
    two_stages, tmp_path
):
    model = {"class_path": "DualDomain", "init_args": {"size": "tiny"}}
    options = ("--run=run", "--trainer.val_every_n_steps=2")
    assert two_stages(tmp_path, *options, model=model, stages=[FLOW, MOTION]) == 0
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        every = list(csv.DictReader(file))
    assert not {"train/psnr", "train/bpp", "train/first/psnr"} & {
        row["name"] for row in every
    }
    rows = [row for row in every if row["name"].startswith("val/")]
    assert {row["name"] for row in rows} == {"val/loss"}
    for number, stage in enumerate(("flow", "motion")):
        losses = {
            float(row["value"]): int(row["step"]) - 4 * number
            for row in rows
            if row["stage"] == stage
        }
        assert len(losses) == 2 and min(losses) > 0
        best = torch.load(tmp_path / "run" / stage / "best.ckpt", weights_only=True)
        assert best["global_step"] == losses[min(losses)]


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
