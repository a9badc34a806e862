"""Columns as memory-mapped files on local disk: ``MemmapWriter`` and ``MemmapDataset``."""
