"""Whether to train again, and from what: the ratings there are, and the feedback that came since."""
