"""Readers of ratings files: one format a file."""
