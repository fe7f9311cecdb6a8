"""How well a recommender does on rows that it has not learnt from."""

PROTOCOL = "as-served"
"""The name of how rows are measured: figures of another protocol are not compared with these."""
