"""Every command of the suite; every number that defines a run."""
