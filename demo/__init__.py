"""The whole cycle in two minutes on MovieLens 100K: `make demo`."""
