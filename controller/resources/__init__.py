"""Typed views of the resources, their validation, defaults and conditions; read from ``crds/``."""
