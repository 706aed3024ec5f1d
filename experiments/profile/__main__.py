"""``python -m experiments.profile``."""

from experiments.profile.command import main

if __name__ == "__main__":
    raise SystemExit(main())
