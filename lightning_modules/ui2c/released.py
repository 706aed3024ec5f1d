"""The published weights of DCVC-RT, under this package's names.

They are two files: a video model, which is :class:`UI2CNetwork` of one frame at a time,
and an image model, :class:`IntraNetwork`. Only names and shapes of the published state
dicts are used here.

Source: microsoft/DCVC, DCVC-RT (arXiv 2502.20762).
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from lightning_modules.codec import VideoCodec
from lightning_modules.released import Released, misfits, state_dict_of
from lightning_modules.saved_file import read_saved
from lightning_modules.ui2c.network import size_of

BLOCK = (
    (r"\.dc\.", ".spatial."),
    (r"\.ffn\.0\.", ".expand.0."),
    (r"\.ffn\.2\.", ".reduce."),
)

VIDEO_LAYERS = (
    *BLOCK,
    (r"^feature_adaptor_", "adaptor_"),
    (r"^feature_extractor\.conv", "extractor_"),
    (r"^encoder\.conv1\.", "embed."),
    (r"^encoder\.conv2\.", "encoder."),
    (r"^encoder\.conv3\.", "encoder.2."),
    (r"^encoder\.down\.", "encoder_down."),
    (r"^(hyper_(?:en|de)coder)\.conv\.", r"\1."),
    (r"^(hyper_encoder\.[12])\.down\.", r"\1.0."),
    (r"^(hyper_decoder\.[01])\.up\.conv\.", r"\1.0."),
    (r"^(hyper_(?:encoder\.[12]|decoder\.[01]))\.conv\.", r"\1.1."),
    (r"^temporal_prior_encoder\.down\.", "temporal_prior.0."),
    (r"^temporal_prior_encoder\.conv\.", "temporal_prior.1."),
    (r"^y_prior_fusion\.conv\.3\.", "fusion.1."),
    (r"^y_prior_fusion\.conv\.", "fusion.0."),
    (r"^y_spatial_prior\.conv\.2\.", "spatial_prior.1."),
    (r"^y_spatial_prior\.conv\.", "spatial_prior.0."),
    (r"^decoder\.up\.conv\.", "decoder_up."),
    (r"^decoder\.conv1\.", "decoder.0."),
    (r"^decoder\.conv2\.", "decoder.1."),
    (r"^recon_generation_net\.conv\.", "recon."),
    (r"^recon_generation_net\.head\.", "recon_out."),
)
"""Patterns of their names, and ours instead; each is tried once, in this order."""

IMAGE_LAYERS = (
    *BLOCK,
    (r"^enc\.enc_1\.", "embed."),
    (r"^enc\.enc_2\.6\.", "encoder.1."),
    (r"^enc\.enc_2\.", "encoder.0."),
    (r"^hyper_enc\.", "hyper_encoder."),
    (r"^hyper_dec\.", "hyper_decoder."),
    (r"^(hyper_encoder\.[12])\.down\.", r"\1.0."),
    (r"^(hyper_decoder\.[01])\.up\.conv\.", r"\1.0."),
    (r"^(hyper_(?:encoder\.[12]|decoder\.[01]))\.conv\.", r"\1.1."),
    (r"^y_prior_fusion\.3\.", "fusion.1."),
    (r"^y_prior_fusion\.", "fusion.0."),
    (r"^y_spatial_prior_reduction\.", "reduction."),
    *((rf"^y_spatial_prior_adaptor_{i + 1}\.", f"adaptors.{i}.") for i in range(3)),
    (r"^y_spatial_prior\.3\.", "spatial_prior.1."),
    (r"^y_spatial_prior\.", "spatial_prior.0."),
    (r"^dec\.dec_1\.0\.up\.conv\.", "decoder.0.0."),
    (r"^dec\.dec_1\.0\.conv\.", "decoder.0.1."),
    *((rf"^dec\.dec_1\.{i + 1}\.", f"decoder.1.{i}.") for i in range(12)),
    (r"^dec\.dec_2\.", "recon.0."),
    (r"^q_scale_enc$", "q_encoder"),
    (r"^q_scale_dec$", "q_decoder"),
)
"""The same for the image model."""


@dataclass(frozen=True)
class Part:
    """One of the two models.

    Attributes:
        kind: How messages call it.
        word: What tells its file's name from the other one's.
        telling: A name that no other published model has.
        network: Which of the codec's networks it is.
        layers: Their names and ours.
    """

    kind: str
    word: str
    telling: str
    network: str
    layers: tuple[tuple[str, str], ...]

    @property
    def file(self) -> str:
        """What its authors call its file."""
        return f"cvpr2025_{self.word}.pth.tar"

    def place(self, name: str) -> tuple[str, int | None]:
        """Return our name for one of their tensors, and the row of it that it is.

        Tables, (rows, C, 1, 1) there, have their first dimension here for what stands
        side by side there; of other tensors there is no row.
        """
        if layer := re.fullmatch(r"bit_estimator_z\.f(\d)\.([hba])", name):
            return f"z_prior.{layer[2]}", int(layer[1]) - 1
        row = 0 if name.startswith("q_") else None
        for pattern, own in self.layers:
            name = re.sub(pattern, own, name)
        return name, row

    def theirs(self, name: str, ours: Mapping[str, Tensor]) -> Tensor:
        """Return our weight for one of their tensors, in their shape.

        Args:
            name: Theirs.
            ours: The network's state dict.
        """
        own, row = self.place(name)
        return ours[own] if row is None else ours[own][row][..., None, None]

    def ours(self, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return all of their tensors under our names, in our shapes."""
        given: dict[str, Tensor] = {}
        tables: dict[str, dict[int, Tensor]] = {}
        for name, value in theirs.items():
            own, row = self.place(name)
            if row is None:
                given[own] = value
            else:
                tables.setdefault(own, {})[row] = value.flatten(1)
        for own, rows in tables.items():
            if len({each.shape for each in rows.values()}) == 1:
                given[own] = torch.stack([rows[row] for row in sorted(rows)])
        return given


VIDEO = Part(
    "DCVC-RT's video model",
    "video",
    "recon_generation_net.head.weight",
    "network",
    VIDEO_LAYERS,
)
IMAGE = Part(
    "DCVC-RT's image model", "image", "hyper_enc.1.down.weight", "intra", IMAGE_LAYERS
)

RELATIVES = (
    ("DCVC-UF", ("recon_head.head.weight", "recon_head.conv.0.5.bias")),
    ("DCVC-UF", ("q_scale_y_enc",)),
    ("DCVC-FM", ("mv_y_q_enc", "refine.0.down1.weight")),
    ("DCVC-DC", ("mv_y_q_basic_enc", "q_basic_enc")),
    ("DCVC-HEM", ("mv_y_q_basic", "q_basic")),
    ("DCVC", ("contextualEncoder.0.weight",)),
)
"""Other codecs of the family, and names that only they have."""


def find_part(weights: Mapping[str, Tensor]) -> tuple[Part, dict[str, Tensor]] | None:
    """Return which model published weights are of, and they by their plain names.

    Args:
        weights: A state dict, its keys perhaps with ``module.`` before all of them.

    Raises:
        ValueError: They are of another codec of the family.
    """
    plain = {key.removeprefix("module."): value for key, value in weights.items()}
    for part in (VIDEO, IMAGE):
        if part.telling in plain:
            return part, plain
    for name, telling in RELATIVES:
        if any(key in plain for key in telling):
            raise ValueError(
                f"these are weights of {name}, which is another network: take those of "
                f"DCVC-RT, {VIDEO.file} and {IMAGE.file}"
            )
    return None


def fit_part(
    part: Part, theirs: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the weights of a model for a network of its size.

    Args:
        part: Which model.
        theirs: Its state dict.
        wanted: The network's.

    Raises:
        ValueError: One is missing, left over, or of another shape.
    """
    given = part.ours(theirs)
    if wrong := misfits(given, wanted):
        raise ValueError(
            f"these are released weights of {part.kind}, and {len(wrong)} of them do "
            f"not fit the network ({', '.join(wrong[:3])}, ...): it must have the size "
            "paper, and the file be whole"
        )
    return given


def other_file(path: Path, part: Part) -> Path | None:
    """Return the other model's file, if it lies beside that of one."""
    other = IMAGE if part is VIDEO else VIDEO
    names = path.name.replace(part.word, other.word), other.file
    beside = (path.with_name(name) for name in names if name != path.name)
    return next((each for each in beside if each.is_file()), None)


def read_beside(path: Path, part: Part) -> dict[str, Tensor]:
    """Return the state dict of the other model's file.

    Raises:
        ValueError: It is damaged, or of another model.
    """
    try:
        contents = read_saved(path, blanks=True)
        _, weights = state_dict_of(contents) if isinstance(contents, dict) else ("", {})
        found = find_part(weights) if isinstance(weights, dict) else None
        if found is None or found[0] is not part:
            raise ValueError(f"is not {part.kind}: get that, or move the file away")
    except ValueError as error:
        raise ValueError(f"{path.name}, beside it: {error}") from error
    return found[1]


def refuse_former(reduction: Tensor | None) -> None:
    """Raise ``ValueError`` if weights are of the image model of an earlier version.

    Args:
        reduction: Its layer of that name, which left out the two gains.
    """
    if reduction is not None and reduction.shape[1] == 2 * reduction.shape[0]:
        raise ValueError(
            "its image model is of divided models before they became DCVC-RT's, whose "
            "steps have another order: train divided models anew"
        )


class ReleasedCodec(VideoCodec):
    """A codec of files that are no checkpoints of its own: DCVC-RT's, or older ones.

    Attributes:
        lacks: Of a codec of the image model alone, what is missing; empty otherwise.
    """

    network: nn.Module
    intra: nn.Module | None
    input_offset: float
    lacks: str = ""

    @classmethod
    def architecture_of(
        cls, named: Mapping[str, Any], weights: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """Find an earlier ``small`` by its latents; see the base class."""
        found = super().architecture_of(named, weights)
        latents = len(weights.get("network.encoder_down.bias", ()))
        return {**found, "size": size_of(found.get("size", "paper"), latents)}

    def check_intra_period(self, intra_period: int) -> None:
        """Refuse frames that refer to others if there is the image model alone."""
        super().check_intra_period(intra_period)
        if intra_period != 1:
            self.refuse_inter()

    def refuse_inter(self) -> None:
        """Raise ``ValueError`` if there is the image model alone."""
        if self.lacks:
            raise ValueError(
                f"{self.lacks}: put it there, or set intra_period to 1, which codes "
                "each frame as a picture"
            )

    def find_released(self, weights: Mapping[str, Tensor]) -> Released | None:
        """Return the weights of one of DCVC-RT's models under this network's names."""
        for key, value in weights.items():
            if key.endswith("intra.reduction.weight"):
                refuse_former(value)
        found = find_part(weights)
        if found is None:
            return None
        part, theirs = found
        network = getattr(self, part.network)
        if self.frames_per_unit != 1 or network is None:
            raise ValueError(
                f"these are released weights of {part.kind}, which this network has "
                "not: add --config ablations/ui2c/dcvc_rt, whose network has"
            )
        if self.input_offset != 0:
            raise ValueError(
                f"these are released weights of {part.kind}, which takes YUV in "
                f"[0, 1], and input_offset is {self.input_offset}: add "
                "--model.input_offset 0.0"
            )
        given = fit_part(part, theirs, network.state_dict())
        named = {f"{part.network}.{key}": value for key, value in given.items()}
        return Released(part.kind, named, {})

    def released_beside(self, weights: Mapping[str, Tensor], path: Path) -> Path | None:
        """Return the file of DCVC-RT's other model, if there is a network for it."""
        found = find_part(weights)
        if found is None or self.intra is None:
            return None
        return other_file(path, found[0])

    @classmethod
    def from_released(cls, weights: Mapping[str, Tensor], path: Path) -> Self | None:
        """Build DCVC-RT, or what of it is there: the other file is looked for beside.

        With the video model alone, a video starts from a blank reference. With the
        image model alone, each frame must be a picture.
        """
        found = find_part(weights)
        if found is None:
            return None
        parts = {found[0]: found[1]}
        if beside := other_file(path, found[0]):
            other = IMAGE if VIDEO in parts else VIDEO
            parts[other] = read_beside(beside, other)
        codec = cls(frames_per_unit=1, divided=IMAGE in parts, input_offset=0.0)
        for part, theirs in parts.items():
            network = getattr(codec, part.network)
            network.load_state_dict(fit_part(part, theirs, network.state_dict()))
        codec.trained_with = {"released": "DCVC-RT"}
        if VIDEO not in parts:
            # Always the same, as the fingerprint names all weights.
            for parameter in codec.network.parameters():
                nn.init.zeros_(parameter)
            codec.lacks = (
                f"{path} is {IMAGE.kind} alone, without {VIDEO.file} beside it"
            )
        if IMAGE not in parts:
            warnings.warn(
                f"{path} is {VIDEO.kind} alone, without {IMAGE.file} beside it: videos "
                "start from a blank reference, not from a picture",
                stacklevel=2,
            )
        return codec
