"""The program on a node: takes prompts from its mailbox, has an agent do them, pushes the work.

Stands alone: the standard library of Python 3.9 or later on Linux, and PyYAML for mock scripts.
"""
