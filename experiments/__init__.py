"""Every command of the suite; every number that defines a run."""

from experiments.cli.neighbours import check_neighbours

# Before any of them is imported.
check_neighbours()
