"""What all commands share: options, exit codes, checks of paths, progress."""
