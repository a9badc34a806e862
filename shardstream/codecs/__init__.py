"""Formats of bytes: shards, columns, sparse sets, files, foreign tars. No storage, no torch."""
