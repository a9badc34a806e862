"""Vocabularies for tests: one trained on this machine's own text by tokenizers, and small random ones."""

import json
import random
from functools import cache

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from shardstream._native import bpe as native
from shardstream.tokenizers.files import BYTE_CHARS
from tests import texts

FROM_CHARS = {char: byte for byte, char in BYTE_CHARS.items()}


def to_bytes(chars: str) -> bytes:
    return bytes(FROM_CHARS[char] for char in chars)


@cache
def trained(pattern: str, vocab_size: int = 3000, num_chars: int = 600_000) -> Tokenizer:
    """Return a tokenizer of Hugging Face's trainer, trained on the standard library with a pattern's text."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=sorted(BYTE_CHARS.values()),
                                  show_progress=False)  # fmt: skip
    tokenizer.train_from_iterator(texts.library_text(num_chars), trainer)
    return tokenizer


def parts_of(tokenizer: Tokenizer) -> tuple[dict[bytes, int], list[tuple[bytes, bytes]]]:
    """Return the ids and merges of a Hugging Face tokenizer, as bytes."""
    model = json.loads(tokenizer.to_str())["model"]
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    return {to_bytes(token): i for token, i in model["vocab"].items()}, [(to_bytes(a), to_bytes(b)) for a, b in merges]


def random_merges(seed: int, num: int, alphabet: bytes = b"ab", repeat: bool = False,
                  shuffle: bool = False) -> list[tuple[bytes, bytes]]:  # fmt: skip
    """Return merges of random pairs of tokens made so far.

    ``repeat`` allows several merges to make one token, ``shuffle`` a merge to come before those of its halves.
    """
    rng = random.Random(seed)
    tokens, merges = [bytes([b]) for b in alphabet], []
    for _ in range(20 * num):
        pair = rng.choice(tokens), rng.choice(tokens)
        token = pair[0] + pair[1]
        if len(merges) < num and len(token) < 20 and pair not in merges and (repeat or token not in tokens):
            merges.append(pair)
            tokens += [token] * (token not in tokens)
    if shuffle:
        rng.shuffle(merges)
    return merges


def ids_of(merges: list[tuple[bytes, bytes]]) -> dict[bytes, int]:
    """Return ids: single bytes first, then each merge's token by its first place."""
    tokens = dict.fromkeys([*(bytes([b]) for b in range(256)), *(a + b for a, b in merges)])
    return {token: i for i, token in enumerate(tokens)}


def build(ranks: dict[bytes, int], merges=None, *, pattern: str = "whole", whole_piece: bool = False) -> native.Bpe:
    """Return the C tables of a vocabulary given as bytes."""
    by_id = {number: token for token, number in ranks.items()}
    tokens = [by_id.get(i, b"") for i in range(max(by_id) + 1)]
    kinds = np.array([bool(token) for token in tokens], np.uint8)
    offsets = np.cumsum([0, *map(len, tokens)])
    if merges is not None:
        merges = np.array([(ranks[a], ranks[b]) for a, b in merges], np.uint32).reshape(-1, 2)
    return native.Bpe(kinds, np.frombuffer(b"".join(tokens), np.uint8), offsets, merges=merges, pattern=pattern,
                      whole_piece=whole_piece)  # fmt: skip


def encode(scratch: native.Scratch, texts: list[bytes]) -> list[list[int]]:
    """Return the ids of each text."""
    values, offsets = np.frombuffer(b"".join(texts), np.uint8), np.cumsum([0, *map(len, texts)])
    ids, bounds = np.empty(len(values) + native.IDS_SLACK, np.uint32), np.empty(len(offsets), np.int64)
    num = scratch.encode(values, offsets, ids, bounds)
    assert num == bounds[-1]
    return [ids[begin:end].tolist() for begin, end in zip(bounds, bounds[1:])]
