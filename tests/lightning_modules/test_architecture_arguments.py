"""An argument of a network stands in its codec alone, and is an option of ``fit``."""

import dataclasses
import inspect

import pytest
import yaml

import lightning_modules
from experiments.fit.options import build_parser

CODECS = lightning_modules.CODECS


def own_arguments(function):
    """Arguments of a module or a codec; of these also what its network can be told."""
    named = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.signature(function).parameters.values()
    options = inspect.get_annotations(function).get("options")
    fields = dataclasses.fields(options) if options else ()
    return {p.name: p.default for p in signature if p.kind == named} | {
        field.name: field.default for field in fields
    }


@pytest.fixture(scope="module")
def parser():
    return build_parser()


@pytest.mark.parametrize("name", CODECS)
def test_an_argument_stands_once_and_is_an_option_with_its_default(name, parser):
    module = getattr(lightning_modules, name)
    codec = own_arguments(inspect.get_annotations(module)["codec"])
    training = own_arguments(module)
    assert codec and not codec.keys() & training.keys()
    # What every codec takes: any distortion, any backbone of LPIPS.
    assert training.keys() >= {"distortion", "lpips", "weight_decay"}
    config = parser.parse_args([f"--model={name}", "--stages=[]"])
    given = yaml.safe_load(parser.dump(config, skip_none=False))["model"]["init_args"]
    defaults = {**training, **codec}
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}
    assert given == plain


@pytest.mark.parametrize("name", CODECS)
def test_a_value_that_the_codec_does_not_know_is_refused(name, parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args([f"--model={name}", "--model.size=huge"])
    assert "tiny" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parser.parse_args([f"--model={name}", "--model.sise=tiny"])
    assert "sise" in capsys.readouterr().err


@pytest.mark.parametrize("name", CODECS)
def test_a_checkpoint_names_the_arguments_flat(name):
    module = getattr(lightning_modules, name)(size="tiny")
    checkpoint = {}
    module.on_save_checkpoint(checkpoint)
    codec = own_arguments(inspect.get_annotations(type(module))["codec"])
    assert checkpoint["codec"]["architecture"] == {**codec, "size": "tiny"}
