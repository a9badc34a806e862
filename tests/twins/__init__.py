"""Slow, obviously right twins of the fast paths; property tests hold them equal."""
