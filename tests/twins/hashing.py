"""Twin of ``csrc/lib/hash_*.c``: Python's own ``str`` and ``re``, one n-gram at a time."""

import re
from collections import Counter

import numpy as np

WORD = re.compile(r"(?u)\b\w\w+\b")
BLANKS = re.compile(r"\s\s+")


def rotated(x: int, bits: int) -> int:
    return (x << bits | x >> (32 - bits)) & 0xFFFFFFFF


def murmur3(data: bytes, seed: int = 0) -> int:
    """MurmurHash3_x86_32, unsigned (Appleby's reference, one block a line)."""
    h, body = seed, len(data) // 4 * 4
    for i in range(0, len(data), 4):
        k = int.from_bytes(data[i : i + 4], "little")
        k = rotated(k * 0xCC9E2D51 & 0xFFFFFFFF, 15) * 0x1B873593 & 0xFFFFFFFF
        h ^= k
        if i < body:
            h = (rotated(h, 13) * 5 + 0xE6546B64) & 0xFFFFFFFF
    h ^= len(data)
    h = (h ^ h >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return h ^ h >> 16


def units_ngrams(units: list[str], low: int, high: int, joint: str) -> list[str]:
    return [joint.join(units[i : i + n]) for n in range(low, high + 1) for i in range(len(units) - n + 1)]


def ngrams_of(text: str, ngrams: tuple[int, int], lowercase: bool, analyzer: str) -> list[str]:
    text = text.lower() if lowercase else text
    if analyzer == "word":
        return units_ngrams(WORD.findall(text), *ngrams, " ")
    text = BLANKS.sub(" ", text)
    if analyzer == "char":
        return units_ngrams(list(text), *ngrams, "")
    found = []
    for word in text.split():
        units = [" ", *word, " "]
        found += units_ngrams(units, min(ngrams[0], len(units)), min(ngrams[1], len(units)), "")
    return found


def signed_index(feature: str | bytes, dim: int) -> tuple[int, int]:
    """Return ``(index, sign)`` of one feature."""
    h = murmur3(feature.encode() if isinstance(feature, str) else feature)
    return (h % dim, 1) if h < 2**31 else ((2**32 - h) % dim, -1)


def rows_of(rows: list[dict[int, float]], dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``(indices, indptr, values)`` of rows of ``{index: value}``."""
    indptr = np.cumsum([0, *map(len, rows)])
    items = [item for row in rows for item in sorted(row.items())]
    return np.array([i for i, _ in items], np.uint32), indptr, np.array([v for _, v in items], dtype)


def hash_texts(texts, dim, ngrams=(1, 2), lowercase=True, signed=False, analyzer="word", binary=False):
    rows = []
    for text in texts:
        row = Counter()
        for ngram in ngrams_of(text, ngrams, lowercase, analyzer):
            index, sign = signed_index(ngram, dim)
            row[index] += sign if signed else 1
        rows.append(dict.fromkeys(row, 1) if binary else row)
    return rows_of(rows, np.float32 if signed and not binary else np.int32)


def hash_features(rows, dim, signed):
    """Hash rows of ``(name, value)`` pairs."""
    sums = []
    for row in rows:
        sums.append({})
        for name, value in row:
            if isinstance(value, str):
                name, value = f"{name}={value}", 1
            if value != 0:
                index, sign = signed_index(name, dim)
                sums[-1][index] = sums[-1].get(index, 0.0) + (sign * value if signed else value)
    return rows_of(sums, np.float32)
