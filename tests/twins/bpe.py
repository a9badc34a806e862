"""Byte-pair encoding as its papers tell it, on top of the ``regex`` package."""

import regex

from shardstream.tokenizers import patterns

# $ is the very end of the text for tiktoken, but comes before a last newline, too, for Python.
COMPILED = {name: regex.compile(text.replace("++$", r"++\Z")) for name, text in patterns.PATTERNS.items()}


def split(pattern: str, text: str) -> list[str]:
    """Cut a text into pieces; ``"whole"`` is no cut."""
    return [text] if pattern == "whole" else [match.group() for match in COMPILED[pattern].finditer(text)]


def merge(parts: list, rank_of) -> list:
    """Merge the adjacent pair of lowest rank, the leftmost on ties, until no pair has a rank.

    ``rank_of(left, right)`` is ``None`` or ``(rank, merged)``.
    """
    while True:
        candidates = [(found[0], i, found[1]) for i in range(len(parts) - 1) if (found := rank_of(parts[i], parts[i + 1]))]
        if not candidates:
            return parts
        _, i, merged = min(candidates)
        parts = [*parts[:i], merged, *parts[i + 2 :]]


def encode_piece(piece: bytes, ranks: dict[bytes, int], merges: list[tuple[bytes, bytes]] | None,
                 whole_piece: bool) -> list[int]:  # fmt: skip
    """Return the ids of one piece; ``merges`` is ``None`` where ids are ranks."""
    if whole_piece and piece in ranks:
        return [ranks[piece]]
    if merges is None:
        tokens = merge([bytes([b]) for b in piece], lambda a, b: (ranks[a + b], a + b) if a + b in ranks else None)
    else:
        places = {pair: place for place, pair in enumerate(merges)}
        tokens = merge([bytes([b]) for b in piece], lambda a, b: (places[a, b], a + b) if (a, b) in places else None)
    return [ranks[token] for token in tokens]


def encode(text: str, ranks, *, pattern: str, merges=None, whole_piece=True) -> list[int]:
    """Return the ids of a text; surrogates in it stand for bytes that are not UTF-8."""
    pieces = [piece.encode("utf-8", "surrogateescape") for piece in split(pattern, text)]
    return [number for piece in pieces for number in encode_piece(piece, ranks, merges, whole_piece)]
