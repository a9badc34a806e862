"""Training of byte-pair encoding as its paper tells it: count all pairs, merge the most frequent, begin again."""

from collections import Counter


def merge_word(word: list[int], left: int, right: int, made: int) -> list[int]:
    """Return a word in which the pair is merged, from left to right."""
    merged = []
    for token in word:
        if merged and token == right and merged[-1] == left:
            merged[-1] = made
        else:
            merged.append(token)
    return merged


def train(pieces: list[bytes], alphabet: bytes, max_tokens: int) -> tuple[list[bytes], list[tuple[int, int]]]:
    """Return the tokens by id, and the merges in their order, as pairs of ids; byte ``alphabet[i]`` has id ``i``."""
    tokens, merges = [bytes([byte]) for byte in alphabet], []
    words = [([alphabet.index(byte) for byte in piece], count) for piece, count in Counter(pieces).items()]
    while len(tokens) < max_tokens:
        counts = Counter()
        for word, count in words:
            for pair in _pairs(word):
                counts[pair] += count
        if not counts:
            break
        left, right = min(counts, key=lambda pair: (-counts[pair], pair))
        words = [(merge_word(word, left, right, len(tokens)), count) for word, count in words]
        merges.append((left, right))
        tokens.append(tokens[left] + tokens[right])
    return tokens, merges


def _pairs(word: list[int]) -> list[tuple[int, int]]:
    return list(zip(word, word[1:]))
