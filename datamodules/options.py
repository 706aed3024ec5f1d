"""What a run is told of its data; free of torch, because every ``--help`` reads it."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

SourceName: TypeAlias = Literal[
    "synthetic", "folder", "stills", "vimeo90k", "openvid", "prepared"
]

SMALLEST_CROP = 4
"""Side in pixels; a smaller synthetic scene cannot be painted."""

LEAST = {
    "stride": 1,
    "val_stride": 1,
    "workers": 0,
    "val_clips": 0,
    "val_frames": 1,
    "val_crop": SMALLEST_CROP,
    "seed": 0,
}


@dataclass(frozen=True)
class DataOptions:
    """Where clips come from, and which of them validate.

    Attributes:
        source: ``synthetic`` (procedural, no download), ``folder`` (any tree of videos
            and directories of PNG or JPEG frames), ``stills`` (any tree of photographs,
            over which a camera moves), ``vimeo90k``, ``openvid``, or ``prepared`` (what
            ``python -m experiments.prepare IN OUT`` wrote, which is read 30 to 110
            times faster).
        root: Directory of the source; ``synthetic`` has none.
        list_file: Vimeo-90K's list file or OpenVid's CSV, if it is not where the
            archive has it.
        fingerprint: Of the prepared store that ``root`` must be, 16 hexadecimal digits;
            a run keeps its own, and does not go on with another.
        stride: Distance between the frames of a clip; by default 3 for ``openvid``,
            else 1.
        flip: Mirror every second training clip left to right, drawn at random.
        workers: Loader processes per device.
        val_source: Source of validation clips; by default a part of ``source`` held
            out of training: Vimeo-90K's test list, other synthetic scenes, or the last
            ``val_clips`` videos (the same videos if there are fewer than twice that).
        val_root: Its directory; by default ``root``.
        val_list_file: Its list file.
        val_clips: Number of validation clips, over all devices; they are kept in
            memory. 0 for no validation.
        val_frames: Frames of a validation clip.
        val_stride: Distance between the frames of a validation clip; by default as in
            training. 1 makes tOF and tLP comparable with those of ``evaluate``, which
            measures every frame.
        val_crop: Side of their centred crop in pixels, smaller where a frame is;
            ``null`` for whole frames.
        seed: Decides every sample.

    Raises:
        ValueError: A value is of another kind, or a number is too small.
    """

    source: SourceName = "synthetic"
    root: str | None = None
    list_file: str | None = None
    fingerprint: str | None = None
    stride: int | None = None
    flip: bool = True
    workers: int = 2
    val_source: SourceName | None = None
    val_root: str | None = None
    val_list_file: str | None = None
    val_clips: int = 4
    val_frames: int = 8
    val_stride: int | None = None
    val_crop: int | None = 256
    seed: int = 0

    def __post_init__(self) -> None:
        # A stage's row is not typed, so its values can be anything.
        required = {"source", "flip", "workers", "val_clips", "val_frames", "seed"}
        for name in _names():
            value = getattr(self, name)
            if name in LEAST:
                right = type(value) is int and value >= LEAST[name]
                allowed = f"a whole number, at least {LEAST[name]}"
            elif name == "flip":
                right, allowed = type(value) is bool, "true or false"
            else:
                right, allowed = isinstance(value, str), "a name (text)"
            if name not in required:
                right, allowed = right or value is None, f"{allowed}, or null"
            if not right:
                raise ValueError(f"data: {name} is {value!r}, it must be {allowed}")

    def changed(self, changes: dict[str, Any]) -> "DataOptions":
        """Return the options of a stage whose row changes some.

        Raises:
            ValueError: A change has an unknown name or a value that it cannot have.
        """
        unknown = sorted(set(changes) - set(_names()))
        if unknown:
            raise ValueError(
                f"a stage cannot change {', '.join(unknown)} of the data; "
                f"it can change {', '.join(_names())}"
            )
        if not {"source", "root"}.isdisjoint(changes):
            # It was that of another store.
            changes = {"fingerprint": None, **changes}
        return replace(self, **changes)

    @property
    def validation(self) -> tuple[SourceName, str | None, str | None] | None:
        """Source, root and list that the user gave for validation, if any."""
        source = self.val_source or self.source
        same = source == self.source
        if same and not self.val_root and not self.val_list_file:
            return None
        root = self.val_root or (self.root if same else None)
        return source, root, self.val_list_file


def _names() -> tuple[str, ...]:
    return tuple(field.name for field in fields(DataOptions))
