"""Benchmarks: each module measures one thing, prints it, and can be run by itself."""
