"""The frames of an anchor's stream: where intra frames are, what comes before what."""

from dataclasses import replace

import av
import pytest

from experiments.anchor.coders import make_coder
from experiments.anchor.settings import load_preset, load_presets


def key_frames(path, container):
    with av.open(str(path), format=container) as file:
        packets = [p for p in file.demux(video=0) if p.size]
    return [n for n, packet in enumerate(packets) if packet.is_keyframe]


@pytest.mark.parametrize("intra_period", [-1, 3])
def test_intra_frames_are_where_the_intra_period_says(
    anchor, tmp_path, intra_period, pyav
):
    codec, preset, rate = pyav
    coder = anchor.coder_of(codec, preset, intra_period=intra_period)
    # A cut, at which encoders would like to start anew.
    codes = anchor.scene(frames=4) + [
        tuple(255 - p for p in f) for f in anchor.scene(frames=4)
    ]
    anchor.code(coder, tmp_path, rate, codes)
    (path,) = tmp_path.iterdir()
    wanted = [0] if intra_period == -1 else [0, 3, 6]
    assert key_frames(path, coder.preset.run["container"]) == wanted


@pytest.mark.parametrize("codec", ["x264", "x265"])
def test_lookahead_starts_no_intra_frame_at_a_cut(anchor, tmp_path, codec):
    codes = anchor.scene() + [
        tuple(255 - plane for plane in frame) for frame in anchor.scene()
    ]
    anchor.code(anchor.coder_of(codec, "ra_medium"), tmp_path, 27, codes)
    with av.open(str(next(tmp_path.iterdir()))) as file:
        kinds = ["?IPB"[frame.pict_type] for frame in file.decode(video=0)]
    assert (kinds[0], kinds.count("I")) == ("I", 1)


def coded_pictures(data):
    """Count the pictures of each temporal unit of an AV1 stream, hidden ones too."""
    units, place = [], 0
    while place < len(data):
        kind, has_extension = data[place] >> 3 & 15, data[place] >> 2 & 1
        place += 1 + has_extension
        size = shift = 0
        while True:
            byte = data[place]
            size |= (byte & 127) << shift
            place, shift = place + 1, shift + 7
            if byte < 128:
                break
        if kind == 2:  # a temporal delimiter
            units.append(0)
        units[-1] += kind in (3, 6)  # a frame's header, alone or with the frame
        place += size
    return units


@pytest.mark.parametrize(
    ("codec", "name"),
    [
        (codec, name)
        for codec in ("x264", "x265", "av1")
        for name in load_presets(codec)
    ],
)
def test_low_delay_presets_code_no_frame_before_an_earlier_one(
    anchor, tmp_path, codec, name
):
    preset = load_preset(codec, name)
    knob = next(iter(preset.knobs))
    anchor.code(
        anchor.coder_of(codec, name, knob), tmp_path, 30, anchor.scene(frames=12)
    )
    (path,) = tmp_path.iterdir()
    if codec == "av1":
        in_order = coded_pictures(path.read_bytes()) == [1] * 12
    else:
        with av.open(str(path), format=preset.run["container"]) as file:
            assert len(list(file.decode(video=0))) == 12
            in_order = not file.streams.video[0].codec_context.has_b_frames
    assert in_order is (preset.structure == "low_delay")


def test_an_encoder_that_keeps_another_intra_period_is_refused(anchor, tmp_path):
    preset = load_preset("x264", "ldp_medium")
    options = {**preset.options, "x264-params": {"keyint": 2, "scenecut": 0}}
    preset = replace(preset, options=options)
    coder = make_coder(preset, "qp", 4, name="anchor")
    with pytest.raises(ValueError, match=r"intra frames are \[0, 2, 4, 6\].*\[0, 4\]"):
        anchor.code(coder, tmp_path, 27)


def test_bits_of_reordered_frames_are_in_order_of_display(anchor, tmp_path):
    codes = anchor.scene()
    cost, _ = anchor.code(anchor.coder_of("x264", "ra_medium"), tmp_path, 24, codes)
    (path,) = tmp_path.iterdir()
    with av.open(str(path), format="h264") as file:
        kinds = ["?IPB"[frame.pict_type] for frame in file.decode(video=0)]
    assert "B" in kinds
    by_kind = {
        kind: [b for b, k in zip(cost.frame_bits, kinds, strict=True) if k == kind]
        for kind in "IPB"
    }
    assert max(by_kind["B"]) < min(by_kind["P"]) < min(by_kind["I"])
