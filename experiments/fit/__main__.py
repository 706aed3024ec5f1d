"""``python -m experiments.fit``."""

from experiments.fit.command import main

if __name__ == "__main__":
    raise SystemExit(main())
