"""From a ratings file to a dataset, and back into memory."""
