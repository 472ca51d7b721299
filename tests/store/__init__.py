"""The file home's store."""
