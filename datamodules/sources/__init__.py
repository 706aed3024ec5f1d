"""What clips are read from: every source is a list of videos."""
