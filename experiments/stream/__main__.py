"""``python -m experiments.stream``."""

from experiments.stream.command import main

if __name__ == "__main__":
    raise SystemExit(main())
