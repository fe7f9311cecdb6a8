"""How well a recommender does on rows that it has not learnt from."""
