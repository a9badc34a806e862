"""Texts for tests of tokenizers: real ones found on this machine, and adversarial ones made from a seed."""

import os
import random
import sysconfig
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import AnyStr

import pytest

SHARED = Path(os.environ.get("SHARDSTREAM_DATA", Path(__file__).resolve().parents[2] / "shared/data"))

# One or more characters for each thing a split pattern asks about, in and outside ASCII.
ALPHABET = (
    "aAbZsSdDtTlLvVeErRmM''''  \n\n\r\t\t/.,-(1234567890\x0b\x1c"
    "\u017f\u0301\u0300\u00e9\u00c9\u00df\u0436\u0416\u4e2d\u6587\u5b57\u02b0\u01c5\u00a0\u3000\u0085\u00b2\u00bd\u0663\U0001d7d8"
    "\U0001f642\u200d\ufe0f\u200b\u2028\u1680\u0e33\uac00\u1100\u1161\ufffd\U000e0041\uff0c\u3002"
)
SUBSETS = (ALPHABET, "aA' \n", " \n\r\t", "aB'sTlLvVeErR \u0301\u4e2d", "ab C. \n12'", "'\u017fs ", "\u4e2d\u6587A1 ")
WORDS = (
    "the ", "Quick", "don't ", " \n\n", "  ", "1234", "...\n", "they'LL ", " foo(bar) ", "==", "\t", "x=1\n",
    "    return ", "/usr/lib\n/", "\r\n", "na\u00efve ", "\u4e2d\u6587", "iPhoneXS", "HTTPServer", "\U0001f468\u200d\U0001f469",
    "<|endoftext|>", " 's", "o'clock",
)  # fmt: skip


def adversarial(seed: int, num: int) -> list[str]:
    """Return ``num`` strings of 1 to 150 characters or words, many from few kinds of characters."""
    rng = random.Random(seed)
    texts = []
    for _ in range(num):
        source = WORDS if rng.random() < 0.2 else rng.choice(SUBSETS) if rng.random() < 0.6 else ALPHABET
        texts.append("".join(rng.choice(source) for _ in range(rng.choice([1, 3, 8, 20, 60, 150]))))
    return texts


def repeated(seed: int, num: int, tokens: Sequence[AnyStr]) -> list[AnyStr]:
    """Return ``num`` joins of 1 to 4 tokens, rather long ones, each after a beginning of it that stands there up to 5 times,
    and cut: what an encoder that guesses by what came before, or by the longest token, gets wrong if anything.
    """
    rng = random.Random(seed)
    texts = []
    for _ in range(num):
        parts = []
        for token in (max(rng.choices(tokens, k=2), key=len) for _ in range(rng.choice((1, 2, 4)))):
            begin, end = (rng.choice((len(token), rng.randint(1, len(token)))) for _ in range(2))
            parts.append(token[:begin] * rng.choice((0, 1, 2, 3, 5)) + token[:end])
        texts.append(tokens[0][:0].join(parts))
    return texts


def strings(tokens: Iterable[bytes]) -> list[str]:
    """Return those tokens that are UTF-8 by themselves."""
    return [text for token in tokens if (text := token.decode("utf-8", "ignore")).encode() == token]


def code_points(context: str = "{}", every: int = 1) -> list[str]:
    """Return the characters, each put into the context, joined by the thousand.

    Of those that this Python knows nothing of (unassigned, private) only each ``every``-th is taken.
    """
    chars = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    chars = [c for c in chars if ord(c) % every == 0 or unicodedata.category(c) not in ("Cn", "Co")]
    return ["".join(context.format(c) for c in chars[i : i + 1024]) for i in range(0, len(chars), 1024)]


@cache
def library_text(num_chars: int) -> list[str]:
    """Return files of the standard library, of about so many characters together."""
    texts, total = [], 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        if total >= num_chars:
            break
        texts.append(path.read_text(encoding="utf-8"))
        total += len(texts[-1])
    return texts


def shared(name: str) -> Path:
    """Return a file of the shared data, or skip the test that asks."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there; SHARDSTREAM_DATA names the folder with the real data")
    return path
