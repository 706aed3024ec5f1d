"""``python -m experiments.propagation``."""

from experiments.propagation.command import main

if __name__ == "__main__":
    raise SystemExit(main())
