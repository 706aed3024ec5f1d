"""What the figures of error propagation show."""

from types import SimpleNamespace

from experiments.propagation.plots import draw_frames


def test_the_axis_of_few_frames_names_whole_ones():
    found = SimpleNamespace(series={"psnr": [30.0, 29, 28, 27], "psnr_intra": [30] * 4})
    figure = draw_frames([(found, {"color": "black"})])
    for axes in figure.axes:
        assert all(float(tick).is_integer() for tick in axes.get_xticks())
