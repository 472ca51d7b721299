"""A test cloud: EC2's API over HTTP on loopback, and machines behind it.

``CloudApi`` (``api.py``) is the API alone, ``Cloud`` (``machines.py``) has real machines too.
"""
