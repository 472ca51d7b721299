"""HTTP in the controller, the same for both homes: health, metrics, transcripts, live events.

``service.Service`` is the whole; a home gives it a ``Health``, a ``Monitor`` and an authenticator.
Nothing here writes: GET and HEAD only.
"""
