"""The reconcilers against a store in memory, scripted workers and a clock that only tests move."""
