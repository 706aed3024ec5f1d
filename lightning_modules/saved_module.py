"""What a checkpoint holds of a codec, and a module that is built from one."""

from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import torch
from lightning import __version__
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn

from lightning_modules import codec_class, codec_weights, read_checkpoint
from lightning_modules.codec import VideoCodec
from lightning_modules.exported import read_card
from lightning_modules.saved_file import fitting
from lightning_modules.shipped import find_model


class SavedModule(LightningModule):
    """A module whose checkpoints rebuild it, and name its network for ``load_codec``.

    Attributes:
        codec: The network.
    """

    codec: VideoCodec

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        map_location: Any = None,
        hparams_file: str | Path | None = None,
        strict: bool | None = None,
        **arguments: Any,
    ) -> Self:
        """Build a module that ``fit`` saved, with its averaged weights if it has them.

        It has no stage: every term of the codec's own counts in its loss.

        Args:
            checkpoint_path: What ``load_codec`` takes; only tensors and plain values
                are read.
            map_location: See Lightning, as for the next two.
            hparams_file: Arguments of the class, instead of those that the checkpoint
                holds.
            strict: Whether every weight must be there.
            arguments: Of the class, where they are to be others than those.

        Raises:
            ValueError: There is no such file, it is no checkpoint of this codec, it was
                cut or has changed, it does not fit this version, or it holds no
                arguments and none are given.
        """
        checkpoint = read_checkpoint(checkpoint_path)
        entry = checkpoint["codec"]
        if entry["name"] != cls.__name__:
            raise ValueError(
                f"{checkpoint_path} is a checkpoint of {entry['name']}, not of "
                f"{cls.__name__}: call {entry['name']}.load_from_checkpoint"
            )
        if cls.CHECKPOINT_HYPER_PARAMS_KEY not in checkpoint and not hparams_file:
            if not arguments:
                raise ValueError(
                    f"{checkpoint_path} was written before checkpoints held the "
                    f"arguments of {cls.__name__}: load its network alone with "
                    "lightning_modules.load_codec(path), or pass the arguments of its "
                    "training, which are model.init_args in the run's config.yaml"
                )
            arguments = {**entry["architecture"], **arguments}
        kind = codec_class(entry["name"])
        former, named = kind.former, entry["architecture"]
        found = kind.architecture_of(named, codec_weights(checkpoint))
        # A preset that has changed under its name.
        renamed = {n: v for n, v in found.items() if n in named and v != named[n]}
        given_others = arguments or hparams_file
        with nullcontext() if given_others else fitting(checkpoint_path, entry["name"]):
            module = super().load_from_checkpoint(
                _as_lightning_reads(checkpoint_path, checkpoint),
                map_location,
                hparams_file,
                strict,
                weights_only=True,
                **{n: v for n, v in (renamed | arguments).items() if n not in former},
            )
        codec = module.codec
        if not hparams_file:
            given = named | arguments
            now = {n: v for n, v in codec.architecture.items() if n in given}
            now |= {n: named[n] for n in renamed if n not in arguments}
            codec.name_as({n: v for n, v in given.items() if n in former} | now)
        return module

    def training_settings(self) -> dict[str, Any]:
        """Return what the weights were trained for: arguments but the architecture.

        Result files record them, and ``compare`` finds a paper's row by them.
        """
        network = self.codec.architecture
        return {name: own for name, own in self.hparams.items() if name not in network}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the averaged weights, unless training goes on with its own."""
        if self._trainer is None or self._trainer.state.fn != TrainerFn.FITTING:
            weights = codec_weights(checkpoint)
            checkpoint["state_dict"] |= {f"codec.{n}": w for n, w in weights.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what ``load_codec`` needs: class, architecture and integer tables.

        The tables belong to the weights that will be used: the averaged ones, where
        there are any (callbacks have added theirs by now).
        """
        codec = self.codec
        averaged = checkpoint.get("ema")
        raw = {k: v.clone() for k, v in codec.state_dict().items()} if averaged else {}
        if averaged:
            codec.load_state_dict({**raw, **averaged})
        tables = codec.build_tables()
        if averaged:
            codec.load_state_dict(raw)
        checkpoint["codec"] = {
            "name": type(self).__name__,
            "architecture": codec.architecture,
            "training": self.training_settings(),
            "tables": {name: entry.to_tensors() for name, entry in tables.items()},
        }


def _as_lightning_reads(path: str | Path, checkpoint: dict[str, Any]) -> Any:
    """Return a path, or the contents of an exported file, which Lightning cannot read.

    Args:
        path: What ``load_from_checkpoint`` was given.
        checkpoint: What was read from there.
    """
    if read_card(find_model(path)) is None:
        return path
    file = BytesIO()
    # Clones: the tensors of such a file share its memory, which cannot be saved.
    weights = {key: each.clone() for key, each in checkpoint["state_dict"].items()}
    own = {"state_dict": weights, "hyper_parameters": checkpoint["hyper_parameters"]}
    torch.save({"pytorch-lightning_version": __version__, **own}, file)
    file.seek(0)
    return file
