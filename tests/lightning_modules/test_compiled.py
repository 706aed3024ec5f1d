"""Compiled blocks: the same training but for rounding, and nothing else than training.

Blocks are traced and differentiated as ever, but run as they are traced: a compiler of
machine code takes longer than all of these tests.
"""

from copy import deepcopy

import pytest
import torch

import lightning_modules
from lightning_modules import compiled
from lightning_modules.compiled import (
    blocks_to_compile,
    check_compiler,
    compile_blocks,
    put_channels_last,
)
from lightning_modules.stages import Stage

CASES = {
    "UI2C": (5, {}),
    "DHVC": (2, {}),
    "DualDomain": (2, {"step": "moe"}),
    "VideoVAE": (5, {"backbone": "lean_vae", "frames_per_unit": 5, "beta": 0.0}),
    "VideoVAE cv_vae": (5, {"frames_per_unit": 5, "beta": 0.0}),
}


@pytest.fixture(autouse=True)
def traced_only(monkeypatch):
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    yield
    torch._dynamo.reset()


def module_of(case, recompute=False, **stage):
    frames, arguments = CASES[case]
    torch.manual_seed(0)
    module = getattr(lightning_modules, case.split()[0])(size="tiny", **arguments)
    row = Stage("s", 9, frames, crop=64, checkpoint_activations=recompute, **stage)
    module.start_stage(row, 0, 1, 0)
    return module.train()


def gradients(module, clip):
    draw = module.draw(clip, torch.tensor([5, 7]), training=True)
    out = module.codec(draw.clip, draw.rate, **draw.conditions)
    loss = module.loss(module.terms(draw, out))
    module.zero_grad()
    loss.backward()
    named = module.codec.named_parameters()
    found = {name: p.grad for name, p in named if p.grad is not None}
    return loss.detach(), found


@pytest.mark.parametrize("case", CASES)
def test_compiled_training_is_the_same_but_for_rounding(case, monkeypatch):
    if case == "UI2C":
        # Gradients have graphs, too: here the backward pass computes them again.
        monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    clip = torch.rand(2, CASES[case][0], 3, 64, 64)
    plain = module_of(case)
    loss, wanted = gradients(plain, clip)
    module = module_of(case, recompute=True)
    compile_blocks(module.codec)
    assert module.state_dict().keys() == plain.state_dict().keys()
    own_loss, found = gradients(module, clip)
    torch.testing.assert_close(own_loss, loss)
    assert found.keys() == wanted.keys()
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    # Blocks of one kind and shape share a graph, and a second step asks for no other.
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert 0 < graphs
    gradients(module, clip)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
    print(case, graphs, len(blocks_to_compile(module.codec)))


def test_only_training_runs_what_is_compiled(monkeypatch):
    module = module_of("UI2C")
    codec = module.codec
    ran = []

    def counting(graph, inputs):
        def run(*args):
            ran.append(graph)
            return graph(*args)

        return run

    monkeypatch.setattr(compiled, "BACKEND", counting)
    compile_blocks(codec)
    clip = torch.rand(1, 2, 3, 32, 32)
    rate = torch.tensor([21])
    with torch.no_grad():
        codec(clip, rate, seeds=torch.tensor([1]))
        assert ran
        ran.clear()
        # Copies, as those that code in another arithmetic, are not compiled.
        deepcopy(codec)(clip, rate, seeds=torch.tensor([1]))
        codec.eval()
        packets = list(codec.compress(clip[0], 21, reconstruct=True))
        decoded = torch.stack(list(codec.decompress(packets, 32, 32)))
        estimated = codec(clip, rate)
        plain = module_of("UI2C").codec.eval()(clip, rate)
    assert not ran
    assert torch.equal(estimated.x_hat, plain.x_hat)
    assert torch.equal(decoded, torch.cat([packet.x_hat for packet in packets]))


def test_a_codec_without_blocks_is_refused():
    codec = lightning_modules.UI2C(size="tiny").codec
    codec.compiled_blocks = ()
    with pytest.raises(ValueError, match="UI2C has no blocks that can be compiled"):
        blocks_to_compile(codec)


def test_a_machine_without_a_compiler_is_told_so(monkeypatch):
    from torch._inductor import cpp_builder

    check_compiler(torch.device("cpu"))
    monkeypatch.setattr(cpp_builder.config.cpp, "cxx", ("no-such-compiler",))
    cpp_builder.cpp_compiler_search.cache_clear()
    with pytest.raises(ValueError, match=r"install a C\+\+ compiler.*compile to false"):
        check_compiler(torch.device("cpu"))
    cpp_builder.cpp_compiler_search.cache_clear()


@pytest.mark.parametrize("case", ["UI2C", "VideoVAE"])
def test_channels_last_changes_no_value(case):
    module = module_of(case)
    before = deepcopy(module.state_dict())
    put_channels_last(module.codec)
    layouts = {p.is_contiguous() for p in module.codec.parameters()}
    assert layouts == {True, False}
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
