"""Charts of W&B's own: bits go right, quality goes up."""

from experiments.results.drawing.wandb_lines import rd_lines


def test_each_curve_is_a_line_of_quality_over_bits():
    curves = [("a", (0.1, 0.2), (30.0, 33.0)), ("b", (0.3,), (35.0,))]
    chart = rd_lines(curves, "PSNR")
    assert chart.spec.string_fields == {"title": "PSNR", "xname": "bpp"}
    rows = [
        dict(zip(chart.table.columns, row, strict=True)) for row in chart.table.data
    ]
    assert [(r["lineKey"], r["step"], r["lineVal"]) for r in rows] == [
        ("a", 0.1, 30.0),
        ("a", 0.2, 33.0),
        ("b", 0.3, 35.0),
    ]
