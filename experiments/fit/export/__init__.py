"""Turn a trained codec into one small file, without optimizer and averages."""
