"""PyAV, imported when a video is first opened.

Machines that only train on pictures, or benchmark, may lack it.
"""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from datamodules.video_reader import VideoError

if TYPE_CHECKING:
    import av as av
else:

    class _PyAV:
        """Stands for the module ``av`` until something of it is used."""

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return getattr(_load(), name)

    av = _PyAV()


@cache
def _load() -> Any:
    try:
        module = import_module("av")
    except ModuleNotFoundError as error:
        raise VideoError(
            "reading and writing video needs the package av: pip install 'av>=18'; "
            "pictures, .yuv and .y4m are read without it"
        ) from error
    side_data: Any = import_module("av.sidedata.sidedata").Type
    side_data._missing_ = classmethod(_unnamed)
    return module


def _unnamed(kinds: Any, value: int) -> Any:
    """Return a kind of side data that PyAV has no name for.

    FFmpeg gives frames more of them (EXIF, the views of stereo video), and asking such
    a frame for any would fail. None of them is looked at.
    """
    member = object.__new__(kinds)
    member._name_, member._value_ = f"UNNAMED_{value}", value
    return member
