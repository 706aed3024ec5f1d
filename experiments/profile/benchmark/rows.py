"""The codecs' own configurations, as a training benchmark runs them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import yaml

from experiments.cli.configs import CONFIGS

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def codec_configs() -> Iterator[str]:
    """Give the name of each configuration that has a codec and a schedule."""
    for path in sorted(CONFIGS.glob("*.yaml")):
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "class_path" in options.get("model", {}) and options.get("stages"):
            yield path.stem


def parsed(arguments: list[str]) -> tuple["ArgumentParser", "Namespace"]:
    """Parse options of ``fit`` and return its parser, too."""
    from experiments.fit.options import build_parser

    parser = build_parser()
    return parser, parser.parse_args(arguments)


def model_arguments(config: str, size: str) -> list[str]:
    """Return options of a configuration, without files that it would need.

    Args:
        config: Its name.
        size: Of the networks; empty for its own.
    """
    arguments = [f"--config={config}"]
    arguments += [f"--model.init_args.size={size}"] if size else []
    data = ["source=synthetic", "root=null", "workers=0", "val_clips=0"]
    arguments += [f"--data.{option}" for option in data]
    arguments += ["--model.init_args.lpips=random", "--tracking.metrics=[psnr]"]
    return arguments
