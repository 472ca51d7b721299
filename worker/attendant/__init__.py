"""What works for a controller on a login host: files, mail, outboxes and commands below one root.

It is started over SSH out of the file that holds the worker, and keeps nothing in memory that is
not in files: one that dies is simply started again.  ``docs/remote.md`` describes it.
"""
