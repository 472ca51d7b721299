"""The controller's own git: what a remote holds, putting refs there, reachability."""
