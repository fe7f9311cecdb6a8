"""What the steps share: the command line, runs, progress, signals, and processes of their own."""
