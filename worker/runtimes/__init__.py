"""Agent runtimes: what turns a prompt into work."""
