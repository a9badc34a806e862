"""Compare ids with tiktoken's and tokenizers': ``python -m tests.soak_tokenizers [first seed] [number of strings]``.

Random and adversarial strings and tokens repeated and cut, a million for each vocabulary by default, every code point among
letters and digits, and invalid UTF-8 that has to come back. Vocabularies are those of the shared data where it is there;
else one is trained on the standard library for each pattern. Prints a line for each vocabulary, and stops at the first
string with other ids.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tiktoken
import tokenizers

import shardstream.tokenizers as sst
from shardstream.tokenizers import patterns
from tests import texts

BATCH = 20_000
RANGES = ((0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE80), (0x1100, 0x1200),
          (0x2000, 0x2070), (0x3000, 0x3100), (0x4E00, 0xA000), (0xAC00, 0xD7A4), (0xD800, 0xE000), (0xFE00, 0x10000),
          (0x1D400, 0x1D800), (0x1F300, 0x1FB00), (0, 0x110000))  # fmt: skip


def random_strings(seed: int, num: int) -> list[str]:
    """Return strings of characters from a few ranges each, lone surrogates and unassigned code points among them."""
    rng = random.Random(seed)
    found = []
    for _ in range(num):
        ranges = rng.choices(RANGES, k=rng.choice((1, 2, 4)))
        found.append("".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.choice((1, 4, 12, 40)))))
    return found


def references(folder: Path) -> list[tuple[str, sst.Tokenizer, Callable]]:
    """Return name, our tokenizer and a function from texts to lists of ids for each reference that can be had."""
    found = []
    for name, (pattern, _) in patterns.RANK_FILES.items():
        path = texts.SHARED / f"vocab/{'tiktoken' if 'k_base' in name else name}/{name}.tiktoken"
        if path.is_file():
            found.append(by_tiktoken(name, sst.load(path, pattern=pattern)))
    if (path := texts.SHARED / "vocab/gpt2/gpt2_tokenizer.json").is_file():
        found.append(by_tokenizers("gpt2, tokenizers", sst.load(path), path))
        ours = sst.load(texts.SHARED / "vocab/qwen2/vocab.json")
        ours.save(folder / "qwen2.json")
        found.append(by_tokenizers("qwen2, tokenizers", ours, folder / "qwen2.json"))
    for name in ("gpt2", "cl100k", "llama3", "qwen2", "o200k") if not found else ():
        ours, path = sst.train(texts.library_text(600_000), 3000, name), folder / f"{name}.json"
        ours.save(path)
        found += [by_tiktoken(f"own {name}", ours), by_tokenizers(f"own {name}, tokenizers", ours, path)]
    return found


def by_tiktoken(name: str, ours: sst.Tokenizer) -> tuple[str, sst.Tokenizer, Callable]:
    vocab = ours.vocabulary
    encoding = tiktoken.Encoding(name, pat_str=vocab.pattern, mergeable_ranks=vocab.tokens(),
                                 special_tokens=dict(vocab.special_tokens))  # fmt: skip
    return name, ours, lambda batch: [encoding.encode_ordinary(text) for text in batch]


def by_tokenizers(name: str, ours: sst.Tokenizer, path: Path) -> tuple[str, sst.Tokenizer, Callable]:
    reference = tokenizers.Tokenizer.from_file(str(path))
    reference.encode_special_tokens = True

    def encode(batch: list[str]) -> list[list[int]]:
        # tokenizers refuses lone surrogates; for tiktoken, and so for us, they are U+FFFD.
        valid = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in batch]
        return [encoding.ids for encoding in reference.encode_batch_fast(valid, add_special_tokens=False)]

    return name, ours, encode


def check(ours: sst.Tokenizer, encode: Callable, batch: list[str], num_threads: int) -> None:
    ids, offsets = ours.encode_batch(batch, num_threads=num_threads)
    for i, expected in enumerate(encode(batch)):
        if ids[offsets[i] : offsets[i + 1]].tolist() != expected:
            sys.exit(f"{batch[i]!r}: {ids[offsets[i] : offsets[i + 1]].tolist()} in place of {expected}")


def check_bytes(ours: sst.Tokenizer, batch: list[str], rng: random.Random) -> None:
    spoiled = []
    for text in batch:
        data = bytearray(text.encode("utf-8", "surrogatepass"))
        for _ in range(min(len(data), 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        spoiled.append(bytes(data))
    ids, offsets = ours.encode_batch(spoiled)
    for i, data in enumerate(spoiled):
        if ours.decode_bytes(ids[offsets[i] : offsets[i + 1]]) != data:
            sys.exit(f"{data!r} does not come back")


def main(first_seed: int = 1, num_strings: int = 1_000_000) -> None:
    """Compare, and print a line for each vocabulary."""
    with tempfile.TemporaryDirectory() as folder:
        for name, ours, encode in references(Path(folder)):
            begin, num_bytes = time.monotonic(), 0
            points = [text for context in ("{}", "a{0}1{0} {0}") for text in texts.code_points(context)]
            check(ours, encode, points, 1)
            tokens = texts.strings(ours.vocabulary.tokens())
            for number, done in enumerate(range(0, num_strings, BATCH)):
                num, seed = min(BATCH, num_strings - done), first_seed + number
                batch = texts.adversarial(seed, num - 2 * (num // 3)) + random_strings(seed, num // 3)
                batch += texts.repeated(seed, num // 3, tokens)
                check(ours, encode, batch, 1 + seed % 2)
                if not ours.vocabulary.nfc:  # which changes characters
                    check_bytes(ours, batch[::10], random.Random(seed))
                num_bytes += int(np.sum([len(text) for text in batch]))
            print(f"{name}: {num_strings} strings of {num_bytes} characters, {len(points)} texts with every code point: equal "
                  f"({time.monotonic() - begin:.0f} s)", flush=True)  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
