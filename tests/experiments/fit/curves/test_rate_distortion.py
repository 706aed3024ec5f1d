"""Curves at each validation: equal bits, BD-rates, and what is shown of them."""

from types import SimpleNamespace

import pytest

from experiments.compare.bd import compare_curves, make_curve, quality_at
from experiments.fit.curves import rate_distortion
from experiments.fit.curves.figure import draw_stages
from experiments.fit.curves.rate_distortion import RateDistortion, at_equal_bits
from experiments.fit.curves.reference import Reference
from experiments.fit.curves.validations import Validation
from experiments.fit.loggers.wandb_run import StageWandbLogger
from experiments.fit.options import TrackingOptions
from lightning_modules.stages import Stage

BPP = (0.04, 0.08, 0.16, 0.32)
METRICS = ["psnr", "tof", "bpp"]


class Logger:
    """Keeps what it is given, as W&B or not."""

    def __init__(self):
        self.logged = []

    def log_metrics(self, metrics, step):
        self.logged.append((step, dict(metrics)))

    def of(self, start):
        return {k: v for _, own in self.logged for k, v in own.items() if start in k}


class Wandb(Logger, StageWandbLogger):
    def log_image(self, key, images, step, caption):
        self.log_metrics({key: images}, step)


def figures(shift=0.0):
    found = {"val/psnr": 27.0, "val/loss": 1.0, "train/loss": 2.0}
    for number, bpp in enumerate(BPP):
        found |= {
            f"val/qp{number}/bpp": bpp,
            f"val/qp{number}/psnr": 20.0 + 3 * number + shift,
            f"val/qp{number}/tof": 2.0 - 0.3 * number,
        }
    return found


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """Do not draw; a test of its own does."""
    paths = []
    monkeypatch.setattr(rate_distortion, "draw", lambda *args: paths.append(args[-1]))
    return paths


def validate(callback, loggers, step, values, stage="two", last=9, **row):
    row = Stage(stage, last, 1, **row)
    trainer = SimpleNamespace(
        sanity_checking=False,
        global_step=step,
        max_steps=last,
        loggers=loggers,
        callback_metrics=values,
    )
    module = SimpleNamespace(stage=row, run_step=100 + step)
    callback.on_validation_end(trainer, module)


def make(tmp_path, reference=None, earlier=(), **options):
    options = TrackingOptions(metrics=METRICS, **options)
    data = {"one": {}, "two": {}}
    return RateDistortion(options, tmp_path, reference, data, dict(earlier))


def test_quality_is_read_off_at_equal_bits_and_never_beyond_the_curve(tmp_path):
    logger = Logger()
    callback = make(tmp_path, at_bpp=[0.02, 0.04, 0.1, 0.5])
    validate(callback, [logger], 4, figures())
    (step, logged), *_ = logger.logged
    names = ["0.04bpp/psnr", "0.1bpp/psnr", "0.04bpp/tof", "0.1bpp/tof"]
    assert step == 3 and list(logged) == [f"val/{name}" for name in names]
    points = [(i, bpp, 20.0 + 3 * i) for i, bpp in enumerate(BPP)]
    curve = make_curve("x", "psnr_rgb", "val", None, points)
    assert logged["val/0.1bpp/psnr"] == pytest.approx(quality_at(curve, 0.1))
    assert logged["val/0.04bpp/psnr"] == pytest.approx(20.0)
    assert at_equal_bits({}, [0.1]) == {}


def reference(shift=0.0, count=4, caveat=""):
    points = [(i, bpp, 20.0 + 3 * i + shift) for i, bpp in enumerate(BPP)][:count]
    curve = make_curve("x264", "psnr_rgb", "val", None, points)
    table = {f"{i}": {"bpp": bpp, "psnr": psnr} for i, bpp, psnr in points}
    return Reference("x264", {"psnr": curve}, table, caveat)


def test_the_bd_rate_is_that_of_compare_with_its_caveats(tmp_path):
    anchor = reference(caveat="x264 is of other clips")
    plain, wandb_logger = Logger(), Wandb()
    validate(make(tmp_path, anchor), [plain, wandb_logger], 4, figures(1.0))
    points = [(i, bpp, 21.0 + 3 * i) for i, bpp in enumerate(BPP)]
    test = make_curve("two", "psnr_rgb", "val", None, points)
    rate, _, flags = compare_curves(anchor.curves["psnr"], test, "pchip")
    assert rate.value < -10
    numbers = {"val/bd_rate_psnr": rate.value, "val/bd_rate_psnr_overlap": rate.overlap}
    assert plain.of("bd_rate") == numbers
    assert [flag.kind for flag in flags] == []
    texts = {"val/bd_rate_psnr_flags": "x264 is of other clips"}
    assert wandb_logger.of("bd_rate") == numbers | texts


def test_curves_without_a_common_quality_have_a_reason_and_no_number(
    tmp_path, monkeypatch
):
    said = []
    monkeypatch.setattr(rate_distortion, "rank_zero_info", said.append)
    logger, callback = Wandb(), make(tmp_path, reference(40.0))
    for step in (2, 4):
        validate(callback, [logger], step, figures())
    assert "val/bd_rate_psnr" not in logger.of("bd_rate")
    assert logger.of("overlap") == {"val/bd_rate_psnr_overlap": 0.0}
    assert "no quality in common" in logger.of("flags")["val/bd_rate_psnr_flags"]
    (text,) = said
    assert "no BD-rate against x264 yet (psnr: the curves have no quality" in text


def test_a_stage_without_bits_and_a_trainer_without_loggers_log_nothing(tmp_path):
    logger, callback = Logger(), make(tmp_path)
    validate(callback, [logger], 4, figures(), weights={"rate": 0.0})
    validate(callback, [logger], 4, {"val/psnr": 1.0})
    validate(callback, [], 4, figures())
    validate(callback, [logger], 0, figures())
    assert logger.logged == [] and not callback.validations


def test_the_table_has_the_last_of_each_stage_and_the_newest(tmp_path, drawn):
    first = Validation.of("one", 50, figures(-5.0))
    callback = make(tmp_path, reference(), [("one", first)])
    loggers = [Logger(), Wandb()]
    for step in range(1, 40):
        validate(callback, loggers, step, figures(step), last=39)
    columns, rows = callback.table()
    assert columns == ["stage", "step", "rate", "bpp", "psnr", "tof"]
    assert [row[:3] for row in rows[::4]] == [
        ["x264", None, "0"],
        ["one", 50, "qp0"],
        ["two", 139, "qp0"],
    ]
    assert len(rows) == 12 and rows[-1][3:] == [0.32, 68.0, pytest.approx(1.1)]
    assert rows[0][3:] == [0.04, 20.0, None]
    table = loggers[1].logged[-1][1]["val/rd_table"]
    assert len(table.data) == 12
    assert not loggers[0].of("val/rd")
    assert drawn[-1] == tmp_path / "media" / "0000139_two_rd.png"


def test_pictures_come_as_often_as_strips_and_at_a_stages_end(tmp_path, drawn):
    callback = make(tmp_path, strips_every_n_validations=3)
    for step in range(1, 7):
        validate(callback, [Logger()], step, figures(), last=6)
    steps = [int(path.name[:7]) - 100 for path in drawn]
    assert steps == [1, 4, 6]
    again = make(tmp_path, strips_every_n_validations=3)
    again.load_state_dict({"validations": 2})
    for step in (3, 4):
        validate(again, [Logger()], step, figures(), last=6)
    assert drawn[-1].name.startswith("0000104") and len(drawn) == 4
    none = make(tmp_path, strips_every_n_validations=0)
    validate(none, [Logger()], 6, figures(), last=6)
    assert len(drawn) == 4


def test_the_figure_is_drawn_and_a_full_disk_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.undo()
    shown = Wandb()
    earlier = [("one", Validation.of("one", 50, figures(-5.0)))]
    validate(make(tmp_path, reference(), earlier), [shown], 9, figures())
    path = tmp_path / "media" / "0000109_two_rd.png"
    assert shown.of("val/rd")["val/rd"] == [str(path)]
    assert path.read_bytes().startswith(b"\x89PNG")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "media").write_text("in the way")
    with pytest.warns(UserWarning, match="no picture .*0000109_two_rd.png"):
        validate(make(tmp_path / "full"), [Wandb()], 9, figures())


def test_measured_points_that_make_a_curve_turn_back_are_drawn_hollow():
    points = [(float(i), BPP[i], tof) for i, tof in enumerate((1.4, 1.1, 1.2))]
    curve = make_curve("one", "tof", "val", None, points)
    assert curve.left_out == (2,)
    line, hollow = draw_stages({"tof": [curve]}, "x", None).axes[0].lines
    assert list(line.get_xdata()) == [*BPP[:2]]
    assert list(hollow.get_xdata()) == [BPP[2]]
    assert hollow.get_markerfacecolor() == "white"


def test_a_reference_that_nothing_comes_of_is_refused():
    options = TrackingOptions(reference="x264.json")
    module = SimpleNamespace(rate_points=lambda: {"lmbda64": 64.0})
    with pytest.raises(ValueError, match="validated at 1 rate, and a BD-rate needs 3"):
        rate_distortion.reference_for(options, "csv", module, {})
    with pytest.raises(ValueError, match="--logger none keeps no BD-rate"):
        rate_distortion.reference_for(options, "none", module, {})
    assert rate_distortion.reference_for(TrackingOptions(), "none", module, {}) is None


def test_a_reference_that_is_none_is_refused_before_anything_is_written(
    two_stages, tmp_path, capsys
):
    assert two_stages(tmp_path, "--run=run", "--tracking.reference=x264.json") == 2
    assert "--tracking.reference x264.json: there is no such" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="at_bpp has 0"):
        TrackingOptions(at_bpp=[0.1, 0])
