import pytest

from lightning_modules.stages import Shrink, Stage, check_stages


def test_a_rehearsal_keeps_every_row_and_caps_it():
    rows = [
        Stage("short", 1000, 3, crop=256, batch_size=16, lr=1e-4),
        Stage(
            "long",
            9000,
            7,
            crop=512,
            batch_size=8,
            lr=1e-5,
            data={"root": "x"},
            clip_norm=0.1,
        ),
        Stage("tail", 5, 2, crop=32, batch_size=1),
    ]
    small = Shrink(total_steps=100, min_steps=20, frames=5, crop=64, batch_size=4)
    shrunk = small.apply(rows)
    assert [s.name for s in shrunk] == ["short", "long", "tail"]
    assert [s.steps for s in shrunk] == [20, 90, 5]
    assert [s.frames for s in shrunk] == [3, 5, 2]
    assert [s.crop for s in shrunk] == [64, 64, 32]
    assert [s.batch_size for s in shrunk] == [4, 4, 1]
    assert shrunk[1].lr == pytest.approx(1e-4)
    assert shrunk[1].data == {} and shrunk[1].clip_norm is None


def test_learning_rates_warm_up_and_fall():
    stage = Stage("row", 100, 3, lr=1.0, schedule="cosine", warmup=10)
    assert stage.lr_at(0) == pytest.approx(0.1)
    assert stage.lr_at(9) == pytest.approx(1.0)
    assert stage.lr_at(55) == pytest.approx(0.505, abs=1e-3)
    assert stage.lr_at(100) == pytest.approx(0.01)
    assert Stage("row", 100, 3, lr=1.0).lr_at(99) == 1.0


@pytest.mark.parametrize("field", ["steps", "frames", "crop", "batch_size"])
def test_a_row_without_anything_to_do_is_refused(field):
    row = {"steps": 1, "frames": 1, "crop": 1, "batch_size": 1, field: 0}
    with pytest.raises(ValueError, match=field):
        Stage("row", **row)


def test_a_schedule_without_rows_or_with_twins_is_refused():
    with pytest.raises(ValueError, match="no stage"):
        check_stages([])
    with pytest.raises(ValueError, match="twin"):
        check_stages([Stage("twin", 1, 1), Stage("twin", 2, 1)])


@pytest.mark.parametrize("balance", [-0.1, 1.5, float("nan")])
def test_a_balance_beyond_0_to_1_is_refused(balance):
    with pytest.raises(ValueError, match=r"balance is .*, it must be 0 to 1"):
        Stage("row", 1, 1, balance=balance)
