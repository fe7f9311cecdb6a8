"""A version as a file that runtimes of other makers read."""
