"""The model families: a file or a folder each, and this folder is the list of them. What they share is in base/."""
