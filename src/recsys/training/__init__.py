"""A dataset and a family in, a recommender out."""
