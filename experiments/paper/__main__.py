"""``python -m experiments.paper``."""

from experiments.paper.command import main

if __name__ == "__main__":
    raise SystemExit(main())
