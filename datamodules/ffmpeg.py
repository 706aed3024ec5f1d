"""Where the FFmpeg program is that encodes with VVenC and measures VMAF."""

INSTALL = "pip install 'imageio-ffmpeg>=0.8.1' (the suite's extra anchors)"


def find_ffmpeg() -> str:
    """Return the path of imageio-ffmpeg's program.

    Raises:
        ValueError: It is not installed.
    """
    try:
        import imageio_ffmpeg
    except ImportError:
        raise ValueError(f"this needs an FFmpeg with VVenC: {INSTALL}") from None
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise ValueError(f"imageio-ffmpeg has no program here: {error}") from error
