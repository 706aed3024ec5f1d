"""``python -m experiments.anchor``."""

from experiments.anchor.command import main

if __name__ == "__main__":
    raise SystemExit(main())
