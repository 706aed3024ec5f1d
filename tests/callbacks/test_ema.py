"""The moving average of the weights: validated, resumed, refused."""

import pytest
import torch
from lightning.pytorch import Callback

from callbacks.ema import CodecEMA


def test_the_average_validates_and_the_training_weights_come_back(
    tiny_module, fit, recorder
):
    seen = []

    class Look(Callback):
        def on_validation_batch_end(self, trainer, pl_module, *args):
            seen.append(pl_module.codec.scale.detach().clone())

    ema, module = CodecEMA(0.25), tiny_module()
    # Before the average in the list: it must not matter.
    fit(module, recorder, Look(), ema)
    average = torch.ones(2)
    for step, value in enumerate(recorder.seen, start=1):
        decay = min(0.25, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
        if step % 2 == 0:
            assert torch.allclose(seen[step // 2 - 1], average)
    assert torch.equal(module.codec.scale, recorder.seen[-1])
    assert set(ema.average) == {"scale"}
    assert module.codec.symbols.tolist() == [0, 1, 2, 3]


def test_every_step_counts_where_a_batch_takes_several(tiny_module, fit):
    class Twice(tiny_module):
        """Steps twice with each batch."""

        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.seen = []

        def training_step(self, batch, batch_idx):
            for _ in range(2):
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward((self.codec.scale * batch).sum())
                optimizer.step()
                self.seen.append(self.codec.scale.detach().clone())

    ema, module = CodecEMA(0.25), Twice()
    fit(module, ema, steps=6)
    average = torch.ones(2)
    for step, value in enumerate(module.seen, start=1):
        decay = min(0.25, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
    assert len(module.seen) == 6
    assert torch.allclose(ema.average["scale"], average)


def test_a_failed_validation_gives_the_training_weights_back(
    tiny_module, fit, recorder
):
    class Fail(Callback):
        def on_validation_batch_end(self, *args):
            raise OSError("disk")

    module = tiny_module()
    with pytest.raises(OSError, match="disk"):
        fit(module, CodecEMA(), recorder, Fail())
    assert torch.equal(module.codec.scale, recorder.seen[-1])


class SaveAt(Callback):
    """Save at the end of a batch, and during validation."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, *args):
        path = self.path / "batch.ckpt"
        # Only once: amid accumulated batches the gradients so far would be lost.
        if trainer.global_step == 3 and not path.exists():
            trainer.save_checkpoint(path)

    def on_validation_batch_end(self, trainer, *args):
        if trainer.global_step == 2:
            trainer.save_checkpoint(self.path / "validation.ckpt")


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", ["batch", "validation"])
def test_a_resumed_average_is_exact(tiny_module, fit, tmp_path, name, accumulate):
    whole, whole_module = CodecEMA(0.9), tiny_module()
    # The saver runs first: the average must catch up with the step by itself.
    fit(whole_module, SaveAt(tmp_path), whole, steps=6, accumulate=accumulate)
    path = tmp_path / f"{name}.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    trained, averaged = (
        checkpoint["state_dict"]["codec.scale"],
        checkpoint["ema"]["scale"],
    )
    assert not torch.equal(trained, averaged)
    resumed, module = CodecEMA(0.9), tiny_module()
    options = {"ckpt_path": path, "weights_only": True, "accumulate": accumulate}
    fit(module, resumed, steps=6, **options)
    assert torch.equal(module.codec.scale, whole_module.codec.scale)
    assert torch.equal(resumed.average["scale"], whole.average["scale"])


def test_an_average_of_another_codec_is_refused(tiny_module, fit):
    ema = CodecEMA()
    ema.on_load_checkpoint(None, None, {"ema": {"gain": torch.ones(1)}})
    with pytest.raises(ValueError, match=r"\['gain', 'scale'\].*--init_from"):
        fit(tiny_module(), ema)


def test_weights_of_a_file_are_tested_and_not_the_average(tiny_module, fit, tmp_path):
    class Test(tiny_module):
        """Can be tested, and shows by what weights."""

        def test_step(self, batch, batch_idx):
            tested.append(self.codec.scale.detach().clone())

    clips = torch.utils.data.DataLoader([torch.ones(2)], batch_size=None)
    tested, ema, module = [], CodecEMA(0.25), Test()
    trainer = fit(module, ema, steps=2)
    average, path = ema.average["scale"].clone(), tmp_path / "two.ckpt"
    trainer.save_checkpoint(path, weights_only=False)
    trainer.test(module, clips, verbose=False)
    # As after two more steps.
    ema.average["scale"] = average + 1
    trainer.test(module, clips, ckpt_path=path, verbose=False)
    trainer.test(module, clips, verbose=False)
    assert torch.equal(tested[0], average)
    assert not torch.equal(tested[1], average + 1)
    assert torch.equal(tested[1], tested[2])
