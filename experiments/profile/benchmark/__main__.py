"""``python -m experiments.profile.benchmark``."""

from experiments.profile.benchmark.command import main

if __name__ == "__main__":
    raise SystemExit(main())
