import os
import random
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from shardstream._native import bpe as native
from shardstream.errors import TokenizerError
from shardstream.tokenizers.files import byte_chars, read_ranks
from tests import texts
from tests import vocabularies as v
from tests.twins import bpe as twin

SEEDS = st.integers(0, 2**32)
WORDS = st.lists(st.binary(max_size=40).map(lambda b: bytes(97 + x % 2 for x in b)), min_size=1, max_size=8)
LONG_WORDS = st.lists(st.sampled_from([b"ab", b"ba", b"aab", b"abb", b"a" * 9, b"b" * 7]), max_size=60).map(b"".join)


def with_repeated(seed: int, merges: list[tuple[bytes, bytes]], words: list[bytes]) -> list[bytes]:
    """Return the words and two that repeat tokens of the merges."""
    return words + texts.repeated(seed, 2, [b"a", *(a + b for a, b in merges)])


@settings(max_examples=300)
@given(SEEDS, st.integers(0, 40), WORDS, LONG_WORDS)
def test_backtracking_equals_merging_by_list(seed, num_merges, words, long_word):
    """A vocabulary whose merges come after their halves gives what merging pair by pair gives, at any length."""
    merges = v.random_merges(seed, num_merges)
    ranks = v.ids_of(merges)
    bpe = v.build(ranks, merges)
    words = with_repeated(seed, merges, [*words, long_word])
    assert v.encode(native.Scratch(bpe), words) == [twin.encode_piece(word, ranks, merges, False) for word in words]


@settings(max_examples=300)
@given(SEEDS, st.integers(0, 40), st.booleans(), st.booleans(), WORDS, LONG_WORDS)
def test_ranks_equal_merging_by_rank(seed, num_merges, shuffle, whole_piece, words, long_word):
    """Ids as ranks, in any order, with tokens that merging never makes, give what the twin's pair by pair gives."""
    merges = v.random_merges(seed, num_merges, shuffle=shuffle)
    ranks = v.ids_of(merges)
    words = with_repeated(seed, merges, [*words, long_word])
    got = v.encode(native.Scratch(v.build(ranks, whole_piece=whole_piece)), words)
    assert got == [twin.encode_piece(word, ranks, None, whole_piece) for word in words]


@settings(max_examples=200)
@given(SEEDS, st.integers(1, 40), WORDS, LONG_WORDS)
def test_repeated_and_shuffled_merges_equal_tokenizers(seed, num_merges, words, long_word):
    """Several merges for one token, and merges before those of their halves, decide as in tokenizers."""
    merges = v.random_merges(seed, num_merges, repeat=True, shuffle=True)
    ranks = v.ids_of(merges)
    model = models.BPE({byte_chars(token): i for token, i in ranks.items()},
                       [(byte_chars(a), byte_chars(b)) for a, b in merges])  # fmt: skip
    reference = Tokenizer(model)
    words = with_repeated(seed, merges, [*words, long_word])
    got = v.encode(native.Scratch(v.build(ranks, merges)), words)
    assert got == [reference.encode(word.decode()).ids for word in words]


@pytest.mark.parametrize("by_rank", [False, True])
def test_repeated_tokens_have_the_twins_ids(by_rank):
    """Tokens repeated, cut and joined, of vocabularies that have long ones."""
    for seed in range(100):
        merges = v.random_merges(seed, 20, alphabet=b"abc")
        ranks, words = v.ids_of(merges), texts.repeated(seed, 8, [a + b for a, b in merges])
        merges = None if by_rank else merges
        got = v.encode(native.Scratch(v.build(ranks, merges)), words)
        assert got == [twin.encode_piece(word, ranks, merges, False) for word in words]


@settings(max_examples=50)
@given(SEEDS, st.binary(max_size=60))
def test_all_256_bytes_are_encoded_and_decoded(seed, data):
    """Any bytes come back from their ids, also where merges are of bytes outside ASCII."""
    merges = v.random_merges(seed, 60, alphabet=bytes(set(data)) or b"a")
    bpe = v.build(v.ids_of(merges), merges)
    assert bpe.decode(np.array(v.encode(native.Scratch(bpe), [data])[0], np.uint32)) == data


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "llama3", "qwen2", "o200k"])
def test_texts_are_split_then_merged(pattern):
    """With a trained vocabulary, adversarial texts have the twin's ids under every pattern, warm cache or cold."""
    ranks, merges = v.parts_of(v.trained(twin.patterns.PATTERNS["o200k"]))
    scratch = native.Scratch(v.build(ranks, merges, pattern=pattern))
    batch = texts.adversarial(seed=2, num=120)
    expected = [twin.encode(text, ranks, pattern=pattern, merges=merges, whole_piece=False) for text in batch]
    for _ in range(2):
        assert v.encode(scratch, [text.encode() for text in batch]) == expected


def test_pieces_that_push_each_other_out_of_the_cache_keep_their_ids():
    """More different pieces than the cache has room for have the same ids when met again, and as a new scratch gives.
    """
    ranks, merges = v.parts_of(v.trained(twin.patterns.PATTERNS["o200k"]))
    bpe = v.build(ranks, merges, pattern="gpt2")
    text = " ".join(f"{'abcdefghij'[number % 10]}{number * 2654435761 % 2**32:x}" for number in range(150_000)).encode()
    batch = [text, text[::-1], text]
    scratch = native.Scratch(bpe)
    assert v.encode(scratch, batch) == [v.encode(native.Scratch(bpe), [one])[0] for one in batch]


def test_halves_are_the_last_merge():
    """The halves of a trained vocabulary's tokens are its merges; bytes have none."""
    ranks, merges = v.parts_of(v.trained(twin.patterns.PATTERNS["o200k"]))
    halves = v.build(ranks).halves()
    assert [tuple(pair) for pair in halves[256:].tolist()] == [(ranks[a], ranks[b]) for a, b in merges]
    assert (halves[:256] == native.NO_ID).all()


def test_late_tokens_have_no_halves():
    """A token that only a merge of higher rank leads to is found, and merged, but has no halves."""
    late = v.ids_of([]) | {b"abc": 256, b"ab": 257}
    bpe = v.build(late)
    assert bpe.halves()[256].tolist() == [native.NO_ID] * 2
    assert bpe.halves()[257].tolist() == [97, 98]
    assert v.encode(native.Scratch(bpe), [b"abc", b"abd", b"ab" * 40 + b"c"]) == [[256], [257, 100], [257] * 39 + [256]]


LETTERS = string.ascii_letters
# How each megabyte is made of a size: texts without a place to split, or whose pieces are not words.
HARD = {
    "one letter": lambda rng, size: "a" * size, "blanks": lambda rng, size: " " * size,
    "newlines": lambda rng, size: "\n" * size, "dashes": lambda rng, size: "-" * size,
    "two letters": lambda rng, size: "ab" * (size // 2),
    "blanks and newlines": lambda rng, size: "".join(rng.choices(" \n", k=size)),
    "blanks with a newline at the end": lambda rng, size: " " * (size - 1) + "\n",
    "base64": lambda rng, size: "".join(rng.choices(LETTERS + string.digits + "+/", k=size)),
    "random letters": lambda rng, size: "".join(rng.choices(LETTERS, k=size)),
    "chinese": lambda rng, size: "".join(map(chr, rng.choices(range(0x4E00, 0x9FA6), k=size // 3))),
    "three characters": lambda rng, size: "\u4e2d\u6587\u5b57" * (size // 9),
    "apostrophes and long s": lambda rng, size: "'\u017f" * (size // 3),
    "bytes ff": lambda rng, size: b"\xff" * size,
}  # fmt: skip


def hard(name: str, size: int) -> bytes:
    text = HARD[name](random.Random(1), size)
    return text if isinstance(text, bytes) else text.encode()


def vocabularies() -> list[tuple[str, dict[bytes, int]]]:
    """Return pattern and ranks of one learned here, split and whole, and of two published ones where they are there."""
    own, _ = v.parts_of(v.trained(twin.patterns.PATTERNS["o200k"]))
    found = [("o200k", own), ("whole", own)]
    for pattern, name in (("cl100k", "tiktoken/cl100k_base"), ("llama3", "llama3/llama3")):
        if (path := texts.SHARED / f"vocab/{name}.tiktoken").is_file():
            found.append((pattern, read_ranks(path.read_bytes(), str(path))))
    return found


def test_steps_grow_in_proportion_to_the_text():
    """Twice the text takes at most 2.1 times the steps, and few a byte, whatever the text and the vocabulary."""
    steps: dict[tuple[str, str], list[int]] = {}
    tables = [(pattern, v.build(ranks, pattern=pattern, whole_piece=True)) for pattern, ranks in vocabularies()]
    for name in HARD:
        for text in (hard(name, 2**20), hard(name, 2**21)):
            for pattern, bpe in tables:
                scratch = native.Scratch(bpe)
                v.encode(scratch, [text])
                steps.setdefault((pattern, name), []).append(scratch.num_steps)
    assert not {case: pair for case, pair in steps.items() if pair[1] > 2.1 * pair[0] or pair[0] > 16 * 2**20}


RUNS = [b"-" * n for n in (2, 3, 4, 5, 8, 12, 16, 20, 24, 32, 48, 64, 96)]


def test_runs_take_few_steps():
    """Where a run has tokens of many lengths, as in cl100k, few places are tried in vain; the ids are the twin's."""
    ranks = v.ids_of([]) | {token: 256 + i for i, token in enumerate(RUNS)}
    bpe = v.build(ranks)
    words = [b"-" * n for n in range(1, 300, 13)] + [b"-" * 70 + b"=" + b"-" * 130, b"-" * 65 + b"+" * 9 + b"-" * 97]
    assert v.encode(native.Scratch(bpe), words) == [twin.encode_piece(word, ranks, None, False) for word in words]
    scratch = native.Scratch(bpe)
    v.encode(scratch, [b"-" * 2**20])
    assert scratch.num_steps < 2 * 2**20


def test_steps_of_the_heap_grow_in_proportion_to_the_text():
    """So they do where late tokens call for the heap, but for its logarithm."""
    bpe = v.build(v.ids_of([]) | {b"aba": 256, b"ab": 257, b"ba": 258, b"bab": 259})
    steps = []
    for text in (b"ab" * 2**16, b"ab" * 2**17):
        scratch = native.Scratch(bpe)
        v.encode(scratch, [text])
        steps.append(scratch.num_steps)
    assert steps[1] <= 2.3 * steps[0]


def resident_nbytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_of_a_long_piece_is_given_back():
    """The heap takes 36 bytes a byte of a piece; what is kept for the next call is at most 1 MiB."""
    bpe = v.build(v.ids_of([]) | {b"aba": 256, b"ab": 257, b"ba": 258, b"bab": 259})
    scratch, text = native.Scratch(bpe), b"ab" * 2**20
    v.encode(scratch, [text[:2000]])
    before = resident_nbytes()
    ids, bounds = np.empty(len(text) + native.IDS_SLACK, np.uint32), np.empty(2, np.int64)
    scratch.encode(text, np.array([0, len(text)]), ids, bounds)
    assert resident_nbytes() - before < 20 * 2**20  # of which ids are 8


def spoiled(**changes):
    """Return the arguments of a vocabulary of the 256 bytes and "ab", changed."""
    tokens = [bytes([b]) for b in range(256)] + [b"ab"]
    arguments = {
        "kinds": np.ones(257, np.uint8), "values": np.frombuffer(b"".join(tokens), np.uint8),
        "offsets": np.arange(258) + (np.arange(258) == 257), "merges": np.array([[97, 98]], np.uint32),
        "pattern": "whole", "whole_piece": False,
    }  # fmt: skip
    return arguments | changes


@pytest.mark.parametrize(("changes", "message"), [
    ({"merges": np.array([[97, 300]], np.uint32)}, "Merge 0 has an id without a token"),
    ({"merges": np.array([[97, 98], [98, 97]], np.uint32)}, "Merge 1 .* makes none"),
    ({"merges": np.array([[97, 98], [97, 98]], np.uint32)}, "Merge 1 came before"),
    ({"offsets": np.arange(258)[::-1].copy()}, "at most 2097151 ids"),
    ({"offsets": np.array([*range(256), 256, 256])}, "Token 256 is empty"),
    ({"offsets": np.arange(258)}, "Token 256 has the bytes of another token"),
    ({"kinds": np.array([1] * 65 + [0] + [1] * 191, np.uint8)}, "single byte 65 is not a token"),
])  # fmt: skip
def test_vocabularies_that_break_a_rule_are_named(changes, message):
    """The error says which rule, and at which token or merge."""
    with pytest.raises(TokenizerError, match=message):
        native.Bpe(**spoiled(**changes))


def test_batches_with_wrong_offsets_are_named():
    """Offsets that descend or leave the buffer are errors that say which text."""
    bpe = native.Bpe(**spoiled())
    ids, bounds = np.empty(9, np.uint32), np.empty(4, np.int64)
    for offsets in ([0, 1, 5, 6], [0, 2, 1, 3], [-1, 0, 0, 1]):
        with pytest.raises(TokenizerError, match=r"texts\[\d\]") as caught:
            native.Scratch(bpe).encode(b"aba", np.array(offsets), ids, bounds)
        assert caught.value.index == next(i for i, o in enumerate(offsets[1:]) if o > 3 or o < offsets[i] or offsets[i] < 0)


def test_ids_without_a_token_are_not_decoded():
    """The first wrong id is named."""
    with pytest.raises(TokenizerError, match=r"ids\[1\] is 257"):
        native.Bpe(**spoiled()).decode(np.array([97, 257], np.uint32))
