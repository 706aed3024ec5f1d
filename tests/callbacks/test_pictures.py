"""Pictures of a validation: strips, videos and maps."""

from types import SimpleNamespace

import av
import pytest
import torch

from callbacks.pictures import (
    ClipLogger,
    MapLogger,
    draw_maps,
    draw_strip,
    frames_of_strip,
    show,
    side_by_side,
)
from lightning_modules.base import ValidationResult


def test_a_strip_has_a_row_per_frame_and_three_columns():
    clip = torch.rand(7, 3, 150, 200)
    assert draw_strip(clip, clip).shape == (4 * (150 + 18), 3 * 200, 3)
    assert draw_strip(clip[:2], clip[:2]).shape == (2 * (150 + 18), 3 * 200, 3)
    small, large = clip[:1, :, :40, :50], torch.rand(1, 3, 30, 1290)
    assert draw_strip(small, small).shape == (18 + 120, 3 * 150, 3)
    assert draw_strip(large, large).shape == (18 + 10, 3 * 430, 3)


def test_a_strip_shows_both_sides_of_a_boundary():
    assert frames_of_strip(8) == [0, 2, 5, 7]
    assert frames_of_strip(11, [8, 9]) == [0, 7, 8, 10]
    assert frames_of_strip(2, [1]) == [0, 1]
    levels = torch.arange(11).reshape(11, 1, 1, 1).expand(11, 3, 128, 128) / 20
    strip = draw_strip(levels, levels, [8, 9]).reshape(4, 18 + 128, 3 * 128, 3)
    shown = strip[:, 18 + 64, 64, 0] / 255 * 20
    assert shown.round().astype(int).tolist() == [0, 7, 8, 10]


def test_a_strip_shows_source_reconstruction_and_tenfold_error():
    clip = torch.full((1, 3, 128, 128), 128 / 255)
    strip = draw_strip(clip, clip - 5 / 255)
    row = strip[18:].reshape(128, 3, 128, 3)
    assert [int(row[64, column, 64, 0]) for column in range(3)] == [128, 123, 50]
    assert strip[:18].max() > 200  # The caption.


def test_each_validation_leaves_a_strip_and_a_video(tiny_module, fit, tmp_path):
    fit(tiny_module(), ClipLogger(tmp_path), clip=torch.rand(1, 9, 3, 33, 47))
    names = {path.name for path in (tmp_path / "media").iterdir()}
    stems = ("0000102_intra", "0000104_intra")
    kinds = ("low.png", "low.mp4", "high.png", "high.mp4")
    assert names == {f"{stem}_{kind}" for stem in stems for kind in kinds}
    with av.open(str(tmp_path / "media" / "0000104_intra_high.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert [frame.shape for frame in frames] == [(32, 92, 3)] * 8


def test_strips_are_of_the_fewest_and_of_the_most_bits():
    results = [ValidationResult("river", f"qp{q}", q, *[None] * 3) for q in (0, 9, 63)]
    chosen = ClipLogger("run").chosen(results)
    assert {name: each.rate for name, each in chosen.items()} == {
        "_low": 0,
        "_high": 63,
    }
    assert MapLogger("run").chosen(results) == {"": results[1]}
    # Nothing to tell apart.
    assert ClipLogger("run").chosen(results[:1]) == {"": results[0]}


def test_loggers_that_show_pictures_get_those_that_they_can(tmp_path):
    shown = []
    images = SimpleNamespace(log_image=lambda *args, **more: shown.append((args, more)))
    for kind in ("png", "mp4"):
        path = tmp_path / f"x.{kind}"
        show([SimpleNamespace(), images], "val/strip_low", path, 3, "river at qp0")
    place = ("val/strip_low", [str(tmp_path / "x.png")], 3)
    assert shown == [(place, {"caption": ["river at qp0"]})]


def test_pictures_of_units_coded_apart_reach_into_the_second(
    tiny_module, fit, tmp_path, monkeypatch
):
    module, drawn = tiny_module(), []
    module.codec.frames_per_unit = 9
    module.codec.boundaries = lambda frames: [f for f in (8, 9) if f < frames]

    def record(clip, x_hat, boundaries):
        drawn.append((len(clip), boundaries))
        return draw_strip(clip, x_hat, boundaries)

    monkeypatch.setattr("callbacks.pictures.draw_strip", record)
    fit(module, ClipLogger(tmp_path), steps=2, clip=torch.rand(1, 17, 3, 32, 32))
    assert drawn == [(11, [8, 9])] * 2
    with av.open(str(tmp_path / "media" / "0000102_intra_low.mp4")) as video:
        assert len(list(video.decode(video=0))) == 11


def test_a_video_shows_the_source_at_the_left():
    left, right = torch.zeros(2, 3, 17, 17), torch.ones(2, 3, 17, 17)
    both = side_by_side(left, right)
    assert both.shape == (2, 3, 16, 32)
    assert both[..., :16].max() == 0
    assert both[..., 16:].min() == 1


def test_a_picture_that_cannot_be_written_is_a_warning(tiny_module, fit, tmp_path):
    (tmp_path / "media").write_text("in the way")
    with pytest.warns(
        UserWarning, match="no picture 0000102_intra_low.*FileExistsError"
    ):
        trainer = fit(tiny_module(), ClipLogger(tmp_path))
    assert trainer.global_step == 4


def maps(frame, rate):
    ramp = torch.arange(6.0).reshape(2, 3)
    return {f"map{i}": ramp * i for i in range(1, 6)}


def test_each_validation_leaves_a_picture_of_the_codecs_maps(
    tiny_module, fit, tmp_path
):
    module = tiny_module()
    module.codec.maps = maps
    trainer = fit(module, MapLogger(tmp_path))
    names = {path.name for path in (tmp_path / "media").iterdir()}
    assert names == {f"0000{n}_intra_maps.png" for n in (102, 104)}
    figures = trainer.callback_metrics
    assert float(figures["val/map/map2_mean"]) == pytest.approx(5.0)
    assert float(figures["val/map/map2_std"]) == pytest.approx(2 * (35 / 12) ** 0.5)


def test_a_codec_without_maps_leaves_no_picture(tiny_module, fit, tmp_path):
    fit(tiny_module(), MapLogger(tmp_path))
    assert not (tmp_path / "media").exists()


def test_maps_are_drawn_from_black_to_white_in_rows_of_four():
    picture = draw_maps(maps(None, 0))
    tile = 43 * 3  # Grown to at least 128 pixels.
    assert picture.shape == (2 * (18 + 2 * 43 + 18), 4 * tile, 3)
    row = picture[18 : 18 + 2 * 43, :tile]
    assert row[0, 0, 0] == 0 and row[-1, -1, 0] == 255
    assert picture[-30, tile:].max() == 0  # Nothing beside the fifth.
