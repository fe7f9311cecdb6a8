"""Races of promotions, steps killed at a write, inputs and backups that are broken: what went wrong of each."""
