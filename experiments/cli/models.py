"""``lvc --models``: the trained models that ship."""

from experiments.cli.command import run_command


def main() -> int:
    """Print one paragraph for each model, and return the exit code."""
    return run_command(lambda: print(describe_models()))


def describe_models() -> str:
    """Return each model with its codec, size and data.

    Raises:
        ValueError: A file of the package is damaged.
    """
    from lightning_modules.shipped import shipped_cards, shipped_models

    paths = shipped_models()
    if not paths:
        return "no trained model ships with this version: lvc fit trains one"
    lines = ["--checkpoint and --init_from take these by name:"]
    for name, card in shipped_cards().items():
        size = paths[name].stat().st_size / 1e6
        config = paths[name].with_suffix(".yaml")
        lines += [
            f"  {name}",
            f"      {card.codec}, {card.parameters / 1e6:.2f} M parameters as "
            f"{card.dtype}, {size:.2f} MB",
            f"      trained on {card.data or 'data that it does not name'}"
            + f" (licence: {card.licence})" * bool(card.licence),
        ]
        if config.is_file():
            lines.append(f"      {config}")
    return "\n".join(lines)
