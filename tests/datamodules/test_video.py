import multiprocessing
from itertools import chain, islice
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from datamodules.options import DataOptions
from datamodules.sources.opening import build_source
from datamodules.sources.samples import GlobalBatches, TrainingClips, collate
from datamodules.sources.source import ClipError, ClipSource
from datamodules.video import VideoDataModule


class CountedSource(ClipSource):
    """Twelve videos; each pixel of a clip says the item, unless it is broken."""

    def __init__(self, broken=()):
        super().__init__()
        self.broken = broken

    def __len__(self):
        return 12

    def label(self, item):
        return f"video_{item}"

    def read(self, item, rng, frames, crop, stride):
        if item in self.broken:
            raise ClipError("damaged")
        noise = rng.integers(0, 2, (frames, crop, crop, 3))
        return (20 * item + noise).astype(np.uint8)

    def describe(self):
        return "counted"


def clips(source, stage=0, seed=0, flip=True):
    shape = {"frames": 2, "crop": 8, "stride": 1}
    return TrainingClips(
        source, range(len(source)), seed=seed, stage=stage, flip=flip, **shape
    )


def items(samples):
    return [int(sample["clip"].max()) // 20 for sample in samples]


def fake_trainer(step=0, rank=0, world_size=1, accumulate=1):
    return SimpleNamespace(
        global_step=step,
        global_rank=rank,
        world_size=world_size,
        accumulate_grad_batches=accumulate,
    )


def module(trainer=None, batch_size=4, **options):
    options = {"workers": 0, "val_clips": 2, "val_crop": 32, **options}
    data = VideoDataModule(DataOptions(**options))
    data.trainer = trainer or fake_trainer()
    data.start_stage(1, frames=3, crop=16, batch_size=batch_size)
    data.setup("fit")
    return data


def batches(data, count):
    return [
        data.on_after_batch_transfer(batch, 0)
        for batch in islice(iter(data.train_dataloader()), count)
    ]


def joined(found, key):
    return torch.cat([batch[key] for batch in found])


def make_pngs(root, videos, frames=6, size=(40, 48)):
    for video in range(videos):
        folder = root / f"video_{video:02}"
        folder.mkdir(parents=True)
        for frame in range(frames):
            image = np.full((*size, 3), 10 * video + frame, np.uint8)
            cv2.imwrite(str(folder / f"im{frame + 1}.png"), image)
    return root


def test_training_batches_are_floats_in_the_unit_range():
    batch = batches(module(), 1)[0]
    assert sorted(batch) == ["clip", "index"]
    assert batch["clip"].shape == (4, 3, 3, 16, 16)
    assert batch["clip"].dtype == torch.float32
    assert 0 <= batch["clip"].min() < batch["clip"].max() <= 1
    assert batch["clip"].max() > 0.1
    assert batch["index"].dtype == torch.int64
    assert (batch["index"] >= 0).all()
    assert len(set(batch["index"].tolist())) == 4


def test_every_video_is_seen_once_per_epoch_in_another_order():
    dataset = clips(CountedSource())
    first = items(dataset[number] for number in range(12))
    second = items(dataset[number] for number in range(12, 24))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    other = clips(CountedSource(), stage=1)
    assert items(other[number] for number in range(12)) != first


def test_a_sample_depends_on_seed_stage_and_number_alone():
    forward = [clips(CountedSource())[number] for number in range(30)]
    dataset = clips(CountedSource())
    for number in reversed(range(30)):
        again = dataset[number]
        assert torch.equal(again["clip"], forward[number]["clip"])
        assert again["index"] == forward[number]["index"]
    for change in ({"stage": 1}, {"seed": 1}):
        assert clips(CountedSource(), **change)[3]["index"] != forward[3]["index"]
    indices = {sample["index"] for sample in forward}
    assert len(indices) == 30
    assert all(0 <= index < 2**63 for index in indices)


def test_about_half_of_the_clips_are_mirrored():
    plain, flipped = clips(CountedSource(), flip=False), clips(CountedSource())
    mirrored = [
        torch.equal(flipped[number]["clip"], plain[number]["clip"].flip(-1))
        for number in range(60)
    ]
    same = [
        torch.equal(flipped[number]["clip"], plain[number]["clip"])
        for number in range(60)
    ]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 15 < sum(mirrored) < 45


def test_a_broken_video_is_replaced_alike_every_time_and_named():
    whole = [clips(CountedSource())[number] for number in range(24)]
    broken = [clips(CountedSource(broken=(3, 5)))[number] for number in range(24)]
    again = [clips(CountedSource(broken=(3, 5)))[number] for number in range(24)]
    failed = 0
    for a, b, c in zip(whole, broken, again, strict=True):
        assert torch.equal(b["clip"], c["clip"])
        if b["failures"]:
            failed += 1
            assert b["failures"][0] in {("video_3", "damaged"), ("video_5", "damaged")}
            assert items([b])[0] not in (3, 5)
        else:
            assert torch.equal(a["clip"], b["clip"])
    assert failed == 4
    assert len(collate(broken)["failures"]) >= 4


def test_nothing_but_broken_videos_ends_with_a_clear_error():
    dataset = clips(CountedSource(broken=range(12)))
    with pytest.raises(ClipError, match=r"20 videos in a row .*8x8.*: damaged"):
        dataset[0]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_has_the_same_samples_for_every_number_of_ranks(accumulate):
    def step(world_size, number):
        found = []
        for rank in range(world_size):
            sampler = GlobalBatches(lambda: 0, 8, world_size, rank, accumulate)
            micro = list(islice(iter(sampler), accumulate * (number + 1)))
            found += chain.from_iterable(micro[accumulate * number :])
        return sorted(found)

    for number in range(3):
        assert step(1, number) == list(range(8 * number, 8 * number + 8))
        assert step(2, number) == step(4, number) == step(1, number)


def test_batches_do_not_depend_on_workers():
    alone = batches(module(), 4)
    shared = batches(module(workers=2), 4)
    assert torch.equal(joined(alone, "clip"), joined(shared, "clip"))
    assert torch.equal(joined(alone, "index"), joined(shared, "index"))


def test_two_ranks_together_see_what_one_sees():
    alone = batches(module(), 3)
    ranks = [batches(module(fake_trainer(0, rank, 2)), 3) for rank in range(2)]
    for step in range(3):
        both = joined([ranks[0][step], ranks[1][step]], "clip")
        assert torch.equal(both, alone[step]["clip"])


def test_a_resumed_trainer_goes_on_with_the_next_samples():
    alone = batches(module(), 5)
    resumed = batches(module(fake_trainer(step=3)), 2)
    assert torch.equal(joined(alone[3:], "clip"), joined(resumed, "clip"))
    accumulated = batches(module(fake_trainer(step=3, accumulate=2)), 4)
    assert torch.equal(joined(alone[3:], "clip"), joined(accumulated, "clip"))


def test_the_position_is_read_when_iteration_starts():
    trainer = fake_trainer()
    loader = module(trainer).train_dataloader()
    trainer.global_step = 3
    late = next(iter(loader))["index"]
    assert torch.equal(late, batches(module(fake_trainer(3)), 1)[0]["index"])


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_leaves_the_global_generators_alone(workers):
    data = module(workers=workers)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    batches(data, 2)
    list(data.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


class Recorder(LightningModule):
    """Notes the indices of its batches and learns nothing."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.names = [], []

    def training_step(self, batch):
        self.seen.append(batch["index"].tolist())
        return self.weight * batch["clip"].mean()

    def validation_step(self, batch):
        assert batch["clip"].shape == (1, 8, 3, 32, 32)
        self.names += batch["name"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(tmp_path, steps, resume=None, accumulate=1, workers=0):
    data = VideoDataModule(DataOptions(workers=workers, val_clips=2, val_crop=32))
    data.start_stage(0, frames=2, crop=16, batch_size=4)
    recorder = Recorder()
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        accumulate_grad_batches=accumulate,
        val_check_interval=2 * accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(recorder, datamodule=data, ckpt_path=resume)
    trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")
    return recorder


@pytest.mark.parametrize(("accumulate", "workers"), [(1, 0), (2, 2)])
def test_a_stopped_fit_goes_on_with_the_next_samples(tmp_path, accumulate, workers):
    whole = fit(tmp_path, 5, None, accumulate, workers)
    first = fit(tmp_path, 3, None, accumulate, workers)
    second = fit(tmp_path, 5, tmp_path / "3.ckpt", accumulate, workers)
    assert first.seen + second.seen == whole.seen
    assert len(whole.seen) == 5 * accumulate
    assert set(whole.names) == {f"scene_{2**32}", f"scene_{2**32 + 32768}"}


def test_a_stage_may_change_the_data_but_only_what_exists(tmp_path):
    data = module()
    before = batches(data, 1)[0]["clip"]
    root = str(make_pngs(tmp_path / "root", 9))
    data.start_stage(1, 3, 16, 4, source="folder", root=root)
    data.setup("fit")
    assert f"folder {root}: 9 videos" in data.describe()
    assert not torch.equal(batches(data, 1)[0]["clip"], before)
    data.start_stage(1, 3, 16, 4)
    assert torch.equal(batches(data, 1)[0]["clip"], before)
    with pytest.raises(ValueError, match=r"cannot change crops, path .*source, root"):
        data.start_stage(1, 3, 16, 4, crops=3, path=root)
    with pytest.raises(ValueError, match="stride is 0, it must be a whole number"):
        data.start_stage(1, 3, 16, 4, stride=0)


def test_validation_clips_are_fixed_and_shared_out_without_repeats():
    def names_and_clips(**where):
        found = module(fake_trainer(**where), val_clips=5).val_dataloader()
        return [(batch["name"][0], batch["clip"], batch["index"]) for batch in found]

    alone = names_and_clips()
    assert len({name for name, _, _ in alone}) == 5
    assert alone[0][1].shape == (1, 8, 3, 32, 32)
    ranks = [names_and_clips(rank=rank, world_size=2, step=9) for rank in range(2)]
    assert [len(rank) for rank in ranks] == [3, 2]
    for place, (name, clip, index) in enumerate(alone):
        other = ranks[place % 2][place // 2]
        assert other[0] == name
        assert torch.equal(other[1], clip)
        assert torch.equal(other[2], index)
    # A rank without a clip still validates along with the others.
    without = module(fake_trainer(rank=5, world_size=6), val_clips=5).val_dataloader()
    assert [batch["name"] for batch in without] == [[]]


def shown_frames(**options):
    """Numbers of the frames of the one validation clip, and how data describes it."""
    data = module(source="folder", val_clips=1, val_frames=3, **options)
    (batch,) = data.val_dataloader()
    levels = batch["clip"][0, :, 0, 0, 0] % 10
    return levels.tolist(), data.describe()


def test_validation_may_take_other_frames_than_training(tmp_path):
    root = str(make_pngs(tmp_path, 4, frames=9))
    alike, said = shown_frames(root=root, stride=3)
    assert alike == [1, 4, 7] and said.count("1 frame in 3") == 1
    every, said = shown_frames(root=root, stride=3, val_stride=1)
    assert every == [3, 4, 5]
    assert "1 frame in 3; " in said and said.endswith(", every frame")
    apart, said = shown_frames(root=root, val_stride=2)
    assert apart == [2, 4, 6] and said.endswith(", 1 frame in 2")
    # Training is left as it was.
    with_it = batches(module(source="folder", root=root, val_stride=2), 1)
    without = batches(module(source="folder", root=root), 1)
    assert torch.equal(joined(with_it, "clip"), joined(without, "clip"))


def test_the_fixed_clips_are_tested_too():
    data = module()
    validated, tested = list(data.val_dataloader()), list(data.test_dataloader())
    assert [batch["name"] for batch in tested] == [b["name"] for b in validated]
    with pytest.raises(ValueError, match="val_clips is 0, so there is nothing to test"):
        module(val_clips=0).test_dataloader()


def test_clips_are_not_shared_out_twice():
    ranks = {"accelerator": "cpu", "devices": 2, "strategy": "ddp_spawn"}
    for shares in (True, False):
        trainer = Trainer(**ranks, use_distributed_sampler=shares, logger=False)
        data = module(trainer)
        if shares:
            with pytest.raises(ValueError, match="use_distributed_sampler=False"):
                data.test_dataloader()
        else:
            assert len(data.test_dataloader()) == 1


def test_the_last_videos_of_a_folder_are_held_out(tmp_path):
    root = str(make_pngs(tmp_path, 9))
    data = module(source="folder", root=root, val_clips=3, val_crop=None, workers=0)
    held_out = {batch["name"][0] for batch in data.val_dataloader()}
    assert (
        "held out" in module(source="folder", val_source="folder", root=root).describe()
    )
    assert held_out == {"video_06", "video_07", "video_08"}
    clip = next(iter(data.val_dataloader()))["clip"]
    assert clip.shape == (1, 8, 3, 40, 48)
    seen = joined(batches(data, 12), "clip").mul(255).round().int() // 10
    assert seen.unique().tolist() == [0, 1, 2, 3, 4, 5]
    assert "held out" in data.describe()


def test_too_few_videos_are_validated_on_and_said_so(tmp_path, caplog):
    data = module(source="folder", root=str(make_pngs(tmp_path, 3)), val_clips=2)
    assert len(list(data.val_dataloader())) == 2
    assert "3 are too few to hold 2 out" in data.describe()
    assert "3 are too few to hold 2 out" in caplog.text
    assert len(joined(batches(data, 1), "index")) == 4


def make_vimeo(root, lists):
    for name in ("00001/0001", "00001/0002", "00001/0003", "00001/0004"):
        folder = root / "sequences" / name
        folder.mkdir(parents=True)
        for frame in range(7):
            cv2.imwrite(
                str(folder / f"im{frame + 1}.png"), np.zeros((32, 32, 3), np.uint8)
            )
    for name, text in lists.items():
        (root / name).write_text(text)
    return str(root)


def test_vimeo_is_validated_on_its_test_list(tmp_path):
    train, test = "00001/0001\n00001/0002\n", "00001/0003\n00001/0004\n"
    root = make_vimeo(tmp_path, {"sep_trainlist.txt": train, "sep_testlist.txt": test})
    data = module(source="vimeo90k", root=root, val_clips=1)
    assert [batch["name"] for batch in data.val_dataloader()] == [["00001/0003"]]
    assert "sep_trainlist.txt: 2 septuplets" in data.describe()


def test_vimeo_with_one_list_holds_out_its_end(tmp_path):
    names = [f"00001/000{number}" for number in (1, 2, 3, 4)]
    root = make_vimeo(tmp_path, {"test.txt": "".join(f"{n}/im1.png\n" for n in names)})
    data = module(source="vimeo90k", root=root, val_clips=2)
    assert [batch["name"][0] for batch in data.val_dataloader()] == names[2:]


def test_another_source_may_validate(tmp_path):
    root = str(make_pngs(tmp_path, 3))
    data = module(val_source="folder", val_root=root, val_clips=2)
    names = [batch["name"][0] for batch in data.val_dataloader()]
    assert names == ["video_00", "video_01"]
    assert list(module(val_clips=0).val_dataloader()) == []


def test_skipped_videos_are_reported_by_name(tmp_path):
    assert module().failure_report() == ""
    root = make_pngs(tmp_path, 9)
    (root / "broken.mp4").write_text("not a video")
    for frame in range(2):
        cv2.imwrite(str(root / "video_02" / f"im{frame}.png"), np.zeros((8, 8, 3)))
    (root / "video_04" / "im3.png").write_text("damaged")
    data = module(source="folder", root=str(root), workers=2)
    batches(data, 8)
    assert sorted(data.failures()) == ["broken.mp4", "video_02", "video_04"]
    assert data.failures()["video_04"].startswith("frame im3.png cannot be decoded")
    report = data.failure_report().splitlines()
    assert report[0] == "3 videos were skipped:"
    assert report[1].startswith("  broken.mp4: FFmpeg: ")
    assert "frames differ in size" in report[2]


def test_a_broken_validation_clip_is_left_out_but_not_all(tmp_path):
    root = make_pngs(tmp_path, 6)
    (root / "video_04" / "im3.png").write_text("damaged")
    data = module(source="folder", root=str(root))
    assert [batch["name"] for batch in data.val_dataloader()] == [["video_05"]]
    assert "video_04: frame im3.png" in data.failure_report()
    (root / "video_05" / "im3.png").write_text("damaged")
    with pytest.raises(ClipError, match="none of the 2 validation clips"):
        module(source="folder", root=str(root)).val_dataloader()


def test_a_source_that_makes_no_sense_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'synthetic' has no root"):
        build_source("synthetic", str(tmp_path))
    with pytest.raises(ValueError, match="choose synthetic, folder"):
        build_source("vimeo")
    with pytest.raises(ValueError, match="'folder' has no list_file"):
        build_source("folder", str(tmp_path), "a.csv")
    with pytest.raises(ValueError, match="val_clips is -1"):
        DataOptions(val_clips=-1)
    with pytest.raises(ValueError, match="start_stage"):
        VideoDataModule(DataOptions()).train_dataloader()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_sources_work_in_forked_and_in_spawned_workers(tmp_path, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    data = module(source="folder", root=str(make_pngs(tmp_path, 5)), workers=1)
    expected = batches(module(source="folder", root=str(tmp_path)), 1)[0]["clip"]
    loader = data.train_dataloader()
    loader.multiprocessing_context = method
    assert torch.equal(next(iter(loader))["clip"].float() / 255, expected)
