"""Which split a record belongs to: a pure function of its key.

The hash is BLAKE2b of the key's UTF-8 bytes, keyed with the seed, read as a fraction of 2^64. So a
record stays in its split when others come or go, on every machine, and all that is later made of
one source record (the passages of a file) stays on one side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def fraction(key: str, seed: int) -> float:
    """Return a number in [0, 1) that a key and a seed decide, uniform over keys."""
    salt = seed.to_bytes(8, "little", signed=True)
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=salt).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53


def split_of(key: str, parts: Mapping[str, float], seed: int) -> str:
    """Return the name of the split whose share the key's fraction falls into, in the order given."""
    point, end = fraction(key, seed), 0.0
    for name, share in parts.items():
        end += share
        if point < end:
            return name
    return name
