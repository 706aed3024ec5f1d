"""``python -m experiments.fit.export``."""

from experiments.fit.export.command import main

if __name__ == "__main__":
    raise SystemExit(main())
