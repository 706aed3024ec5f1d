"""Where a run's figures go: a CSV in its folder, and W&B or TensorBoard."""
