"""Test suites that what stands outside this repository can inherit, and small datasets for them; needs pytest."""
