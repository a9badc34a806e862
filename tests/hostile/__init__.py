"""Shards made to harm whoever reads them; README.md lists them, ``tests/test_hostile.py`` reads them."""
