"""``python -m experiments.evaluate``."""

from experiments.evaluate.command import main

if __name__ == "__main__":
    raise SystemExit(main())
