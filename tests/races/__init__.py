"""What arrives together, from fifty connections, at real processes; `history.py` says when it is in order."""
