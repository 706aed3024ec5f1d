"""DualDomain's tables, how they are chosen, and the context that chooses them."""

import math

import numpy as np
import pytest
import torch

from lightning_modules.dual_domain import entropy_model
from lightning_modules.dual_domain.design import SIZES
from lightning_modules.dual_domain.entropy_model import (
    FRACTIONS,
    LEVELS,
    ContextModel,
    choose_tables,
    code_values,
    symbol_tables,
)
from lightning_modules.dual_domain.packets import read_head
from lightning_modules.dual_domain.ports import DecodePort, EncodePort
from lightning_modules.entropy.symbols import SymbolDecoder
from lightning_modules.packets import DesyncError


def gaussian_mass(k, mean, sigma):
    def below(x):
        return 0.5 * math.erfc(-(x - mean) / sigma / math.sqrt(2))

    return below(k + 0.5) - below(k - 0.5)


def test_a_table_is_the_gaussian_of_its_fraction_and_scale():
    tables = symbol_tables()
    assert len(tables) == LEVELS.count * FRACTIONS
    for sigma, mean in ((0.11, 0.0), (0.3, 5.25), (2.0, -7.5), (9.0, 100.4375)):
        log_scale = torch.tensor([math.log(sigma)], dtype=torch.float64)
        choice = choose_tables(torch.tensor([mean], dtype=torch.float64), log_scale)
        row, shift = int(choice.rows[0]), int(choice.shifts[0])
        level = int(choice.levels[0])
        found = math.exp(math.log(LEVELS.low) + level * LEVELS.step)
        assert found == pytest.approx(sigma, rel=LEVELS.step)
        first = int(tables.offset[row])
        used = tables.cdf[row, : tables.length[row] - 1]
        for number, mass in enumerate(np.diff(used) / 65536):
            expected = gaussian_mass(first + number + shift, mean, found)
            assert mass == pytest.approx(expected, abs=2e-3 * expected + 1e-4)


def test_means_and_scales_go_to_the_nearest_table():
    means = torch.tensor([0.0, 0.03, 0.04, -0.04, 0.49, 0.51, -0.5, 2.99])
    choice = choose_tables(means.double(), torch.zeros(8).double())
    assert choice.means.tolist() == [0, 0, 1, -1, 8, 8, -8, 48]
    exact = choice.shifts + (choice.rows % FRACTIONS - FRACTIONS // 2) / FRACTIONS
    assert (exact - means).abs().max() <= 0.5 / FRACTIONS
    ends = choose_tables(means[:2].double(), torch.tensor([-99.0, 99.0]))
    assert ends.levels.tolist() == [0, LEVELS.count - 1]


def test_coded_bits_are_the_models_within_half_a_percent():
    generator = torch.Generator().manual_seed(0)
    shape = (1, 1, 1, 40000)
    mean = 4 * torch.randn(shape, generator=generator).double()
    log_scale = 1.5 * torch.randn(shape, generator=generator).double() - 0.3
    log_scale = log_scale.clamp(math.log(0.11), math.log(64))
    drawn = mean + log_scale.exp() * torch.randn(shape, generator=generator)
    port = EncodePort({"symbols": symbol_tables()}, estimate=True)
    code_values(drawn, mean, log_scale, port, "latent")
    stream = port.encoder.finish()
    assert 8 * len(stream) == pytest.approx(port.bits, rel=0.005)
    decode = DecodePort(SymbolDecoder(stream), port.tables, [])
    found = code_values(None, mean, log_scale, decode, "latent")
    assert torch.equal(found, drawn.round())


def coded_with_noise(dual_domain, monkeypatch, codec, guard, noise):
    """Code with a guard band; decode on a machine whose results are a bit different."""
    clip = dual_domain.scene(3)
    monkeypatch.setattr(entropy_model, "GUARD", guard)
    packets = list(codec.compress(clip, 0.67, reconstruct=True))
    generator = torch.Generator().manual_seed(5)

    def other_machine(mean, log_scale):
        def disturbed(x):
            error = torch.rand(x.shape, generator=generator, dtype=x.dtype) - 0.5
            return x + noise * error

        return choose_tables(disturbed(mean), disturbed(log_scale))

    monkeypatch.setattr(entropy_model, "choose_tables", other_machine)
    decoded = torch.stack(list(codec.decompress(packets, *dual_domain.SIZE)))
    assert torch.equal(decoded, torch.cat([p.x_hat for p in packets]))
    return packets


def test_tables_near_an_edge_are_in_the_packet(dual_domain, monkeypatch, codec):
    packets = coded_with_noise(dual_domain, monkeypatch, codec, guard=1e-2, noise=1e-4)
    assert sum(len(read_head(p)[0].doubts) for p in packets) > 5


def test_without_a_guard_another_machine_desynchronises(
    dual_domain, monkeypatch, codec
):
    with pytest.raises(DesyncError):
        coded_with_noise(dual_domain, monkeypatch, codec, guard=0.0, noise=1e-2)


def test_almost_nothing_lies_within_the_guard_band(dual_domain, codec):
    packets = list(codec.compress(dual_domain.scene(2), 0.67))
    assert all(not read_head(p)[0].doubts for p in packets)


class Recorder:
    """A port that rounds, and notes the parameters that it was given."""

    def __init__(self):
        self.seen = []

    def code(self, target, of):
        self.seen.append((of.take(of.like).clone(), of.take(of.log_scale).clone()))
        return of.mask(target.round())


def test_an_element_sees_only_what_was_coded_before_it():
    torch.manual_seed(2)
    widths = SIZES["tiny"]
    context = ContextModel(widths)
    target, hyper = 4 * torch.randn(1, 48, 4, 4), torch.randn(1, 48, 4, 4)

    def parameters(target):
        port = Recorder()
        with torch.no_grad():
            context(target, hyper, None, None, port)
        return port.seen

    base = parameters(target)
    steps = 2 * len(widths.groups)
    assert len(base) == steps
    board = (torch.arange(4)[:, None] + torch.arange(4)) % 2 == 0
    for changed in range(steps):
        group, odd = divmod(changed, 2)
        first = sum(widths.groups[:group])
        other = target.clone()
        where = ~board if odd else board
        other[:, first : first + widths.groups[group]] += 3.0 * where
        for step, (mine, theirs) in enumerate(
            zip(base, parameters(other), strict=True)
        ):
            same = all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
            assert same == (step <= changed), (changed, step)
