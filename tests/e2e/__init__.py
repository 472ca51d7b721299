"""Whole runs: a real controller, real workers, real repositories."""
