"""Is everything here that the pipeline needs."""
