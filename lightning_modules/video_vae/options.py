"""What VideoVAE can be told when it codes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DecodingOptions:
    """How VideoVAE codes, and decodes.

    Attributes:
        gop_batch: VideoVAE: groups of pictures that are coded side by side (default:
            1); faster on a GPU, and not one bit changes.

    Raises:
        ValueError: The number is below 1.
    """

    gop_batch: int = 1

    def __post_init__(self) -> None:
        if self.gop_batch < 1:
            raise ValueError(f"gop_batch is {self.gop_batch}: it must be >= 1")


@dataclass(frozen=True)
class CodingOptions(DecodingOptions):
    """How VideoVAE codes.

    Attributes:
        gop_overlap: VideoVAE: whether groups of pictures share their outer frames when
            encoding (default: as trained), for at most 1/8 more bits and steadier
            transitions; decoders see it in the stream.
        gop_theta: VideoVAE: weight of the earlier group's copy of a shared frame, from
            0 to 1 in hundredths (default: 0.5, the paper's); another one costs three
            bytes a group, and decoders see it in the stream.
        tile: VideoVAE: side in pixels of the tiles to work in when encoding, as 576,
            where memory is too small for whole frames (default: 0, whole frames); seams
            change the frames a little.

    Raises:
        ValueError: A number is out of range.
    """

    gop_overlap: bool = True
    gop_theta: float = 0.5
    tile: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        hundredths = 100 * self.gop_theta
        if not (0 <= hundredths <= 100 and abs(hundredths - round(hundredths)) < 1e-6):
            raise ValueError(
                f"gop_theta is {self.gop_theta}: it must be from 0 to 1 and have two "
                "decimals, as 0.35"
            )
