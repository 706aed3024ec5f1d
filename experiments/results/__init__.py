"""Files of results: ours, and those of other suites."""
