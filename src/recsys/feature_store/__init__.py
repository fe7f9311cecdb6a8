"""The room of Feast: the features that prepare makes, with their history, for training and for serving."""
