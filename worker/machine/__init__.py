"""Workers on a machine without a batch system: started, watched over and ended there.

It is started over SSH out of the file that holds the worker, once for each order, and all it knows
is in the workers' folders and in the process table.  ``docs/remote.md`` describes it.
"""
