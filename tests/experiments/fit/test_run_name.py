"""A run's name that tells values of its options."""

import pytest

from experiments.fit.run_name import with_values

OPTIONS = {
    "seed": 3,
    "model": {"class_path": "x.Y", "init_args": {"lmbda": 0.05, "widths": [1, 2]}},
    "trainer": {"precision": "16-mixed"},
    "stages": [{"name": "one", "lr": 1e-4}, {"name": "two", "lr": 1e-5}],
}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("plain", "plain"),
        ("a-{seed}-{model.lmbda}", "a-3-0.05"),
        ("{stages.two.lr}", "1e-05"),
        ("{stages.all.lr}", "0.0001"),
        ("{model.widths}", "1-2"),
        ("{trainer.precision}", "16-mixed"),
    ],
)
def test_an_option_in_braces_is_its_value(name, told):
    assert with_values(name, OPTIONS) == told


def test_an_option_that_there_is_not_is_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"did you mean model\.lmbda") as error:
        with_values("a-{model.lambda}", OPTIONS)
    assert "--run a-{model.lambda}: there is no option" in str(error.value)
