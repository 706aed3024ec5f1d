"""AdamW in one kernel: the same steps, exact resumes, runs of the loop go on in it."""

from copy import deepcopy

import pytest
import torch

from lightning_modules.optimizer import adamw


def weights():
    generator = torch.Generator().manual_seed(2)
    shapes = (5, 3), (7,), (2, 3, 3)
    return [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]


def fused(parameters):
    groups = [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.1}]
    return adamw(groups, lr=1e-2, weight_decay=0.1)


def loop(parameters):
    groups = [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.1}]
    return torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.1)


def step(parameters, optimizer, numbers):
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        if number % 3 == 2:
            # As a step that is left out.
            parameters[0].grad = None
        optimizer.step()


@pytest.mark.parametrize("made", [fused, loop])
def test_a_run_goes_on_exactly_as_it_began(made):
    whole = weights()
    step(whole, made(whole), range(8))
    parts = weights()
    first = made(parts)
    step(parts, first, range(4))
    saved = deepcopy(first.state_dict())
    # A later version goes on, whatever the state was saved by.
    following = fused(parts)
    following.load_state_dict(saved)
    step(parts, following, range(4, 8))
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_both_take_the_same_steps_but_for_last_digits():
    one, other = weights(), weights()
    step(one, fused(one), range(8))
    step(other, loop(other), range(8))
    torch.testing.assert_close(one, other)
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_it_is_one_kernel_and_leaves_scaling_to_others():
    optimizer = fused(weights())
    assert all(group["fused"] for group in optimizer.param_groups)
    assert not optimizer._step_supports_amp_scaling


def test_where_there_is_no_kernel_torch_chooses():
    parameter = torch.nn.Parameter(torch.zeros(2, device="meta"))
    optimizer = adamw([{"params": [parameter]}], lr=1e-3, weight_decay=0.0)
    assert optimizer.param_groups[0]["fused"] is None
