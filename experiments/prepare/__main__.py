"""``python -m experiments.prepare``."""

from experiments.prepare.command import main

if __name__ == "__main__":
    raise SystemExit(main())
