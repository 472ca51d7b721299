"""Compute: where workers run, and their mail."""
