"""The live mirror: turns messages into keys, has them converged, and settles the messages."""
