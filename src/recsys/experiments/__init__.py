"""Two versions compared on users: who is shown which, and what may be said of them at any time."""
