"""What answers for a trained version."""
