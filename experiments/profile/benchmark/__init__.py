"""Speed of training, coding and reading on this machine, each against its goal."""
