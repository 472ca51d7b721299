"""The real agents' programs against scripted model servers."""
