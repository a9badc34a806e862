"""Formats of bytes: shards, columns, sparse sets, files, foreign tars. Storage comes in as a fetcher; no torch."""
