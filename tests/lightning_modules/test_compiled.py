"""Compiled blocks: the same training but for rounding, and nothing else than training.

Blocks are traced and differentiated as ever, but run as they are traced: a compiler of
machine code takes longer than all of these tests.
"""

import os
import signal
from copy import deepcopy

import pytest
import torch
import yaml

import lightning_modules
from experiments.fit.command import main
from lightning_modules import compiled
from lightning_modules.base import CodecModule
from lightning_modules.compiled import (
    blocks_to_compile,
    check_compiler,
    compile_blocks,
    put_channels_last,
)
from lightning_modules.stages import Stage

CASES = {
    "UI2C": (3, {}),
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
    if case == "VideoVAE":
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


def test_only_training_runs_what_is_compiled(monkeypatch):
    codec = module_of("UI2C").codec
    ran = []

    def compile_nothing(block, **options):
        assert options["fullgraph"] and not options["dynamic"]

        def run(*args):
            ran.append(block)
            return block._call_impl(*args)

        block._compiled_call_impl = run

    monkeypatch.setattr(torch.nn.Module, "compile", compile_nothing)
    compile_blocks(codec)
    clip = torch.rand(1, 2, 3, 32, 32)
    rate = torch.tensor([21])
    with torch.no_grad():
        codec(clip, rate, seeds=torch.tensor([1]))
        assert set(ran) <= set(blocks_to_compile(codec)) and ran
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


def test_more_shapes_than_are_compiled_end_training(monkeypatch):
    # Torch would go on with what is not compiled, and round otherwise.
    monkeypatch.setattr(compiled, "MOST_SHAPES", 1)
    module = module_of("VideoVAE")
    compile_blocks(module.codec)
    with pytest.raises(ValueError, match=r"more than 1 shapes of what \w+ reads"):
        gradients(module, torch.rand(2, 5, 3, 64, 64))


SCHEDULE = {
    "model": {
        "class_path": "VideoVAE",
        "init_args": {"size": "tiny", **CASES["VideoVAE"][1]},
    },
    "data": {"workers": 0, "val_clips": 0},
    "stages": [
        {
            "name": "all_rows",
            "steps": 3,
            "frames": 5,
            "crop": 64,
            "batch_size": 2,
            "precision": "bf16-mixed",
            "checkpoint_activations": True,
        }
    ],
    "trainer": {"accelerator": "cpu", "threads": 1, "compile": True, "ema_decay": 0.9},
    "logger": "none",
    "tracking": {"metrics": ["psnr"], "strips_every_n_validations": 0},
}


def test_a_compiled_run_goes_on_as_if_it_had_not_stopped(tmp_path, monkeypatch):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(SCHEDULE))
    last = [tmp_path / run / "all_rows" / "last.ckpt" for run in ("whole", "stopped")]

    def train(run):
        return main([f"--config={config}", f"--runs_dir={tmp_path}", f"--run={run}"])

    assert train("whole") == 0
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"]
    step = CodecModule.training_step

    def interrupted(module, *batch):
        if module.trainer.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(module, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(CodecModule, "training_step", interrupted)
        assert train("stopped") == 128 + signal.SIGTERM
    # As another process, it compiles again.
    torch._dynamo.reset()
    assert train("stopped") == 0
    whole, stopped = (torch.load(path, weights_only=True) for path in last)
    assert stopped["global_step"] == 3
    for kind in ("state_dict", "ema"):
        torch.testing.assert_close(stopped[kind], whole[kind], rtol=0, atol=0)


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
