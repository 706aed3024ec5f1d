import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from datamodules import index as index_module
from datamodules import readers as readers_module
from datamodules.folder import FolderSource
from datamodules.index import NAME
from datamodules.openvid import OpenVidSource
from datamodules.readers import DecordReader, PyAvReader, ReaderCache, open_reader
from datamodules.source import ClipError, cut, window
from datamodules.synthetic import SyntheticSource
from datamodules.vimeo90k import Vimeo90KSource


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def rng(seed=0):
    return np.random.default_rng(seed)


def write_video(path, frames=24, size=(48, 64), codec="libx264", **options):
    """Every frame has one grey level, which says its number (see `numbers`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"g": "8", **options}
        for number in range(frames):
            image = np.full((*size, 3), 20 + 4 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return path


def numbers(clip):
    """Frame numbers of a clip whose frames `write_video` wrote."""
    levels = clip.astype(float).mean((1, 2, 3))
    assert clip.astype(float).std((1, 2)).max() < 2
    return np.rint((levels - 20) / 4).astype(int).tolist()


def decode(path):
    """All frames of a video, decoded from the first to the last."""
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def write_png(path, red, green, size=(24, 40)):
    """Red and green are what the caller says, blue is the column."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((*size, 3), np.uint8)
    image[..., 2], image[..., 1] = red, green
    image[..., 0] = np.arange(size[1])
    assert cv2.imwrite(str(path), image)


def make_vimeo(root, names=("00001/0001", "00001/0003", "00002/0001")):
    for sequence, name in enumerate(names):
        for frame in range(7):
            path = root / "sequences" / name / f"im{frame + 1}.png"
            write_png(path, 10 * sequence, 20 * frame)
    return root


def test_a_window_is_contiguous_and_covers_every_start():
    starts = set()
    for seed in range(50):
        frames = window(10, 3, 2, rng(seed))
        assert np.diff(frames).tolist() == [2, 2]
        starts.add(frames[0])
    assert starts == set(range(6))


def test_a_short_video_is_played_back_and_forth():
    assert window(4, 9, 1, rng()) == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert window(4, 4, 2, rng()) == [0, 2, 2, 0]
    assert window(2, 4, 1, None) == [0, 1, 0, 1]
    assert window(1, 1, 1, rng()) == [0]
    with pytest.raises(ClipError, match="too short: 1 frame"):
        window(1, 2, 1, rng())


def test_a_fixed_window_starts_in_the_middle_but_not_late():
    assert window(20, 4, 1, None) == [8, 9, 10, 11]
    assert window(100_000, 2, 1, None) == [240, 241]


def test_a_fixed_crop_is_centred_and_shrinks_to_fit():
    frames = np.arange(2 * 6 * 10 * 3, dtype=np.uint8).reshape(2, 6, 10, 3)
    assert (cut(frames, 4, None) == frames[:, 1:5, 3:7]).all()
    assert (cut(frames, 8, None) == frames[:, :, 1:9]).all()
    with pytest.raises(ClipError, match="10x6, the crop is 8x8"):
        cut(frames, 8, rng())


LAYOUTS = {
    "sep_trainlist.txt": "00001/0003\n00002/0001\n\n",
    "train.list": "00001/0003/\r\n00002/0001/\r\n",
    "test.txt": "".join(
        f"{prefix}{name}/im{frame}.png\n"
        for prefix, name in (("", "00001/0003"), ("sequences/", "00002/0001"))
        for frame in range(1, 8)
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vimeo_reads_the_septuplets_of_every_list_layout(tmp_path, layout):
    make_vimeo(tmp_path)
    (tmp_path / layout).write_text(LAYOUTS[layout])
    source = Vimeo90KSource(tmp_path)
    assert [source.label(item) for item in range(2)] == ["00001/0003", "00002/0001"]
    assert len(source) == 2
    for item, sequence in ((0, 1), (1, 2)):
        for seed in range(5):
            clip = source.read(item, rng(seed), 3, 16, 2)
            assert clip.shape == (3, 16, 16, 3)
            assert (clip[..., 0] == 10 * sequence).all()
            frames = clip[:, 0, 0, 1] // 20
            assert np.diff(frames).tolist() == [2, 2]
            assert (
                np.diff(clip[..., 2].astype(int), axis=2).tolist()
                == [[[1] * 15] * 16] * 3
            )


def test_vimeo_clips_beyond_seven_frames_go_back_and_forth(tmp_path):
    make_vimeo(tmp_path)
    (tmp_path / "train.list").write_text("00001/0001\n")
    clip = Vimeo90KSource(tmp_path).read(0, rng(), 15, None, 1)
    frames = (clip[:, 0, 0, 1] // 20).tolist()
    assert frames == [0, 1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1, 0, 1, 2]


def test_vimeo_names_the_folders_that_its_list_has_and_the_disk_has_not(tmp_path):
    make_vimeo(tmp_path)
    (tmp_path / "sep_trainlist.txt").write_text("00001/0001\n00001/0002\n00009/0001\n")
    message = r"names 2 folders \(of 3\) .*: 00001/0002, 00009/0001\."
    with pytest.raises(ValueError, match=message):
        Vimeo90KSource(tmp_path)


def test_vimeo_says_what_it_looked_for_and_what_it_found(tmp_path):
    with pytest.raises(ValueError, match="needs `root`"):
        Vimeo90KSource(None)
    with pytest.raises(ValueError, match="does not exist"):
        Vimeo90KSource(tmp_path / "nowhere")
    make_vimeo(tmp_path / "vimeo_septuplet")
    with pytest.raises(ValueError, match=r"sequences/ in .*found vimeo_septuplet/"):
        Vimeo90KSource(tmp_path)
    with pytest.raises(ValueError, match=r"sep_trainlist\.txt, .*found sequences/"):
        Vimeo90KSource(tmp_path / "vimeo_septuplet")
    with pytest.raises(ValueError, match=r"list_file .*mine\.txt' does not exist"):
        Vimeo90KSource(tmp_path / "vimeo_septuplet", "mine.txt")


def test_a_septuplet_without_a_frame_gives_no_clip(tmp_path):
    make_vimeo(tmp_path)
    (tmp_path / "train.list").write_text("00001/0001\n")
    (tmp_path / "sequences/00001/0001/im3.png").unlink()
    with pytest.raises(ClipError, match=r"frame im3\.png is missing"):
        Vimeo90KSource(tmp_path).read(0, rng(), 7, None, 1)


@pytest.mark.parametrize("decord", [True, False])
def test_a_training_clip_is_contiguous_with_the_right_stride(
    tmp_path, monkeypatch, decord
):
    if decord and not readers_module.has_decord():
        pytest.skip("decord is not installed")
    write_video(tmp_path / "a" / "b.mp4")
    monkeypatch.setattr(readers_module, "has_decord", lambda: decord)
    source = FolderSource(tmp_path)
    for seed in range(20):
        clip = source.read(0, rng(seed), 5, 32, 3)
        assert clip.shape == (5, 32, 32, 3)
        assert numbers(clip) == window(24, 5, 3, rng(seed))


def test_a_fixed_clip_is_the_same_every_time(tmp_path):
    write_video(tmp_path / "b.mp4")
    source = FolderSource(tmp_path)
    first = source.read(0, None, 6, None, 1)
    assert numbers(first) == [9, 10, 11, 12, 13, 14]
    assert (source.read(0, None, 6, None, 1) == first).all()


def test_a_short_video_is_extended_in_the_order_of_its_frames(tmp_path):
    write_video(tmp_path / "b.mp4", frames=4)
    clip = FolderSource(tmp_path).read(0, rng(), 8, None, 1)
    assert numbers(clip) == [0, 1, 2, 3, 2, 1, 0, 1]


def test_a_folder_finds_videos_and_png_directories_of_any_depth(tmp_path):
    write_video(tmp_path / "x" / "b.mp4")
    write_video(tmp_path / "b.MKV", codec="ffv1")
    write_video(tmp_path / ".hidden" / "b.mp4")
    for number in range(1, 13):
        write_png(tmp_path / "y" / "frames" / f"im{number}.png", number, 0)
    (tmp_path / "y" / "notes.txt").write_text("no video")
    source = FolderSource(tmp_path)
    labels = [source.label(item) for item in range(len(source))]
    assert labels == ["b.MKV", "x/b.mp4", "y/frames"]
    clip = source.read(2, rng(), 12, None, 1)
    assert clip[:, 0, 0, 0].tolist() == list(range(1, 13))
    assert "3 videos, 60 frames" in source.describe()


def test_a_broken_video_is_left_out_by_name_and_a_small_one_refuses(tmp_path):
    write_video(tmp_path / "good.mp4")
    whole = write_video(tmp_path / "small.mp4", size=(32, 32)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:300])
    (tmp_path / "empty.webm").touch()
    (tmp_path / "text.avi").write_text("not a video")
    for number, width in ((1, 40), (2, 44)):
        write_png(tmp_path / "stills" / f"{number}.png", 0, 0, (24, width))
    source = FolderSource(tmp_path)
    assert sorted(source.skipped) == ["cut.mp4", "empty.webm", "stills", "text.avi"]
    assert source.skipped["empty.webm"] == "the file is empty"
    assert "1.png is 40x24, 2.png is 44x24" in source.skipped["stills"]
    assert [source.label(item) for item in range(2)] == ["good.mp4", "small.mp4"]
    source.read(0, rng(), 2, 48, 1)
    with pytest.raises(ClipError, match="too small: 32x32, the crop is 48x48"):
        source.read(1, rng(), 2, 48, 1)


def test_a_video_that_vanishes_or_breaks_later_is_a_clip_error(tmp_path):
    gone = write_video(tmp_path / "gone.mp4")
    broken = write_video(tmp_path / "broken.mp4")
    source = FolderSource(tmp_path)
    gone.unlink()
    broken.write_bytes(b"x" * 2000)
    for item in (0, 1):
        for draw in (rng(), None):
            with pytest.raises(ClipError):
                source.read(item, draw, 4, 32, 1)


def test_an_empty_or_useless_tree_is_refused(tmp_path):
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.mp3").touch()
    with pytest.raises(ValueError, match=r"\.webm.*found music/"):
        FolderSource(tmp_path)
    (tmp_path / "a.mp4").touch()
    with pytest.raises(ValueError, match=r"none of the 1 videos .*the file is empty"):
        FolderSource(tmp_path)
    with pytest.raises(ValueError, match="is not a directory"):
        FolderSource(tmp_path / "a.mp4")


def test_a_count_of_packets_that_is_too_high_sends_the_video_to_pyav(
    tmp_path, monkeypatch
):
    pytest.importorskip("decord")
    path = write_video(tmp_path / "b.mp4")
    assert isinstance(open_reader(path, 24), DecordReader)
    monkeypatch.setattr(DecordReader, "__len__", lambda self: 29)
    reader = open_reader(path, 24)
    assert isinstance(reader, PyAvReader)
    assert numbers(reader.read([3, 5, 23])) == [3, 5, 23]


def test_hidden_frames_are_not_counted(tmp_path):
    plain = write_video(tmp_path / "plain.mkv", 40, codec="libvpx")
    with (
        av.open(str(plain)) as source,
        av.open(str(tmp_path / "b.webm"), "w") as container,
    ):
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if not packet.size:
                continue
            data = bytes(packet)
            if packet.is_keyframe:
                # Bit 4 of a VP8 frame says that it is shown.
                hidden = av.Packet(bytes([data[0] & ~0x10]) + data[1:])
                hidden.pts, hidden.dts = packet.pts, packet.dts
                hidden.time_base = packet.time_base
                hidden.is_keyframe = True
                hidden.stream = stream
                container.mux(hidden)
            packet.stream = stream
            container.mux(packet)
    plain.unlink()
    with av.open(str(tmp_path / "b.webm")) as container:
        assert sum(1 for packet in container.demux(video=0) if packet.size) == 45
    source = FolderSource(tmp_path)
    assert "1 videos, 40 frames" in source.describe()
    shown = decode(tmp_path / "b.webm")
    for seed in range(10):
        frames = window(40, 8, 1, rng(seed))
        assert (source.read(0, rng(seed), 8, None, 1) == shown[frames]).all()


def test_what_av1_needs_is_read_too(tmp_path):
    write_video(tmp_path / "b.mp4", size=(64, 64), codec="libsvtav1")
    source = FolderSource(tmp_path)
    for seed in range(3):
        assert numbers(source.read(0, rng(seed), 5, 32, 2)) == window(
            24, 5, 2, rng(seed)
        )


def test_pyav_is_exact_where_the_container_lies_about_keyframes(tmp_path):
    path = write_video(tmp_path / "b.avi", codec="mpeg4", bf="2", q="2")
    reader, shown = PyAvReader(path), decode(path)
    for start in range(20):
        frames = list(range(start, start + 4))
        assert (reader.read(frames) == shown[frames]).all()


def test_a_clip_does_not_depend_on_what_was_read_before(tmp_path):
    pytest.importorskip("decord")
    # An AVI with B-frames: decord is some frames off after a seek, but always alike.
    path = write_video(tmp_path / "b.avi", 48, codec="mpeg4", bf="2", q="2")
    kept = DecordReader(path)
    for seed in range(60):
        frames = window(48, 5, 1, rng(seed))
        assert (kept.read(frames) == DecordReader(path).read(frames)).all()


def test_the_cache_of_readers_is_bounded_and_keeps_the_latest(tmp_path, monkeypatch):
    paths = [write_video(tmp_path / f"{name}.mp4", frames=2) for name in "abc"]
    opened = []

    def counted(path, frames):
        opened.append(path.stem)
        return open_reader(path, frames)

    monkeypatch.setattr(readers_module, "open_reader", counted)
    cache = ReaderCache(2)
    for index in (0, 1, 0, 2, 0, 1):
        cache.read(paths[index], 2, [0])
        assert len(cache) <= 2
    assert opened == ["a", "b", "c", "b"]
    assert len(pickle.loads(pickle.dumps(cache))) == 0


def test_readers_are_opened_anew_in_a_forked_process(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", frames=2)
    cache = ReaderCache()
    cache.read(path, 2, [0])
    monkeypatch.setattr(os, "getpid", lambda: -1)
    monkeypatch.setattr(readers_module, "open_reader", lambda *_: "opened here")
    with pytest.raises(AttributeError, match="read"):
        cache.read(path, 2, [0])


def test_the_index_is_kept_and_used_while_size_and_time_agree(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4")
    write_video(tmp_path / "b.mp4")
    FolderSource(tmp_path)
    kept = json.loads((tmp_path / NAME).read_text())["videos"]["a.mp4"]
    assert (kept["width"], kept["height"], kept["frames"]) == (64, 48, 24)
    assert (kept["fps"], kept["error"]) == (25.0, "")
    assert kept["size"] == (tmp_path / "a.mp4").stat().st_size

    examined = []
    examine = index_module.examine
    monkeypatch.setattr(
        index_module,
        "examine",
        lambda path: examined.append(path.name) or examine(path),
    )
    FolderSource(tmp_path)
    assert examined == []
    write_video(tmp_path / "b.mp4", frames=9)
    assert "33 frames" in FolderSource(tmp_path).describe()
    assert examined == ["b.mp4"]


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 1, "videos": {"a": 3}}'])
def test_a_damaged_index_is_built_anew_with_a_warning(tmp_path, caplog, text):
    write_video(tmp_path / "a.mp4")
    (tmp_path / NAME).write_text(text)
    assert len(FolderSource(tmp_path)) == 1
    assert "cannot be used" in caplog.text
    assert json.loads((tmp_path / NAME).read_text())["videos"]["a.mp4"]["frames"] == 24


def test_the_index_of_a_read_only_tree_lies_in_the_cache_directory(
    tmp_path, monkeypatch
):
    root = tmp_path / "root"
    write_video(root / "a.mp4")
    replace = os.replace

    def refuse(part, path):
        if path.parent == root:
            raise PermissionError("read-only")
        replace(part, path)

    monkeypatch.setattr(os, "replace", refuse)
    FolderSource(root)
    assert os.listdir(root) == ["a.mp4"]
    assert len(list((tmp_path / "cache").rglob("index_*.json"))) == 1
    monkeypatch.setattr(index_module, "examine", None)
    assert len(FolderSource(root)) == 1


def make_openvid(root, videos="video"):
    table = root / "data" / "train" / "OpenVid-1M.csv"
    table.parent.mkdir(parents=True)
    table.write_text(
        "video,caption,fps\n"
        'celebv_-_a.mp4,"A man, who said ""hi"",\nwaves",25\n'
        "---_b_13_0to241.mp4,A dog,30\n"
        "missing.mp4,A cat,30\n"
    )
    for name in ("celebv_-_a.mp4", "---_b_13_0to241.mp4", "unlisted.mp4"):
        write_video(root / videos / name)


@pytest.mark.parametrize("videos", ["video", ""])
def test_openvid_uses_the_listed_videos_that_are_there(tmp_path, caplog, videos):
    make_openvid(tmp_path, videos)
    with caplog.at_level("INFO"):
        source = OpenVidSource(tmp_path)
    names = [source.label(item).split("/")[-1] for item in range(len(source))]
    assert names == ["---_b_13_0to241.mp4", "celebv_-_a.mp4"]
    assert "1 of 3 listed videos are not in" in caplog.text
    assert source.default_stride == 3
    assert numbers(source.read(0, rng(3), 4, 32, 3)) == window(24, 4, 3, rng(3))


def test_openvid_says_what_it_looked_for_and_what_it_found(tmp_path):
    (tmp_path / "OpenVid_part0.zip").touch()
    with pytest.raises(ValueError, match=r"looked for \*\.csv in .*OpenVid_part0\.zip"):
        OpenVidSource(tmp_path)
    make_openvid(tmp_path, "elsewhere")
    message = r"none of the 3 videos .*celebv_-_a\.mp4.*OpenVid_part0\.zip"
    with pytest.raises(ValueError, match=message):
        OpenVidSource(tmp_path)
    with pytest.raises(ValueError, match=r"other\.csv' does not exist"):
        OpenVidSource(tmp_path, "other.csv")


def test_synthetic_scenes_are_decided_by_item_and_generator():
    source = SyntheticSource()
    clip = source.read(7, rng(1), 4, 32, 1)
    assert clip.shape == (4, 32, 32, 3)
    assert clip.dtype == np.uint8
    assert (source.read(7, rng(1), 4, 32, 1) == clip).all()
    assert (SyntheticSource(first=7).read(0, rng(1), 4, 32, 1) == clip).all()
    assert (source.read(7, rng(2), 4, 32, 1) != clip).any()
    assert (source.read(8, rng(1), 4, 32, 1) != clip).any()
    fixed = source.read(7, None, 2, None, 1)
    assert fixed.shape == (2, 256, 256, 3)
    assert (source.read(7, None, 2, None, 1) == fixed).all()


def test_synthetic_scenes_look_like_video():
    """They move, but slowly; neighbouring pixels agree; some have a cut."""
    source = SyntheticSource()
    contrast, motion, gradient = [], [], []
    for item in range(80):
        clip = source.read(item, rng(item), 5, 64, 1).astype(float).mean(-1)
        contrast.append(clip.std())
        motion.append(np.abs(np.diff(clip, axis=0)).mean((1, 2)))
        gradient.append(np.abs(np.diff(clip, axis=2)).mean())
    assert 20 < np.median(contrast) < 60
    assert 1 < np.median(motion) < 12
    assert np.median(gradient) < 0.5 * np.median(contrast)
    cuts = [steps.max() > 5 * np.median(steps) + 5 for steps in motion]
    assert 1 <= sum(cuts) <= 24


WITH_DECORD = """
import sys
from pathlib import Path
from datamodules.readers import has_decord, read_pngs
{first}
assert has_decord()
print(read_pngs([Path(sys.argv[1])]).shape)
"""


@pytest.mark.skipif(not readers_module.has_decord(), reason="needs decord")
@pytest.mark.parametrize(("first", "works"), [("", True), ("import decord", False)])
def test_pngs_of_every_writer_are_read_beside_decord(tmp_path, first, works):
    path = tmp_path / "noise.png"
    # Pillow's compression, which the zlib that decord brings does not understand.
    noise = rng().integers(0, 256, (256, 256, 3), np.uint8)
    Image.fromarray(noise).save(path)
    program = WITH_DECORD.format(first=first)
    command = [sys.executable, "-c", program, str(path)]
    root = Path(readers_module.__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert (done.returncode == 0) == works, done.stderr
    assert ("(1, 256, 256, 3)" in done.stdout) == works
