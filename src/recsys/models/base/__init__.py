"""What every family stands on: its contract, the recommender, and how it is kept."""
