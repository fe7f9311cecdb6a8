"""The whole cycle on MovieLens 100K: `make demo`."""
