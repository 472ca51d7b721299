"""Login hosts: the attendant there, and our end of it."""
