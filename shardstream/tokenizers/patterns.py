"""Split patterns verbatim, which of them C knows by hand, and what well-known vocabularies need.

A tokenizer's pattern is a regular expression in the dialect of tiktoken and Hugging Face: its
matches are the pieces of a text. ``csrc/include/ss_pretok.h`` has five of them in C; any other
runs through the ``regex`` package, exact and some 20 times slower.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from types import MappingProxyType

from shardstream.errors import TokenizerError

GPT2 = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
CL100K = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"""
    r"""|\s+(?!\S)|\s"""
)
# The same where {1,3}+ does not mean possession and $ means the end of a line: Oniguruma, in tokenizers.
CL100K_JSON = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+\z|\s*[\r\n]+"""
    r"""|\s+(?!\S)|\s+"""
)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = "|".join((
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
))  # fmt: skip
WHOLE = ""  # no split: a text is one piece

# The names that ``pattern=`` takes.
PATTERNS = MappingProxyType({
    "gpt2": GPT2, "r50k": GPT2, "p50k": GPT2, "cl100k": CL100K, "llama3": LLAMA3, "qwen2": QWEN2, "o200k": O200K,
})  # fmt: skip

# Pattern -> its name in C. Besides the above, forms in which the same patterns were published before.
NATIVE = MappingProxyType({
    WHOLE: "whole",
    GPT2: "gpt2",
    r"""'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""": "gpt2",
    r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""": "gpt2",
    r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""": "gpt2",
    CL100K: "cl100k",
    CL100K_JSON: "cl100k",
    LLAMA3: "llama3",
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+""": "llama3",
    QWEN2: "qwen2",
    O200K: "o200k",
})  # fmt: skip

# What a ``.tiktoken`` file does not say about itself, by the name of the file.
_FIM = {"<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260}
_LLAMA3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
           "<|reserved_special_token_2|>", "<|reserved_special_token_3|>", "<|start_header_id|>", "<|end_header_id|>",
           "<|reserved_special_token_4|>", "<|eot_id|>",
           *(f"<|reserved_special_token_{i}|>" for i in range(5, 251)))  # fmt: skip
RANK_FILES = MappingProxyType({
    "gpt2": (GPT2, {"<|endoftext|>": 50256}),
    "r50k_base": (GPT2, {"<|endoftext|>": 50256}),
    "p50k_base": (GPT2, {"<|endoftext|>": 50256}),
    "cl100k_base": (CL100K, {"<|endoftext|>": 100257, **_FIM, "<|endofprompt|>": 100276}),
    "o200k_base": (O200K, {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}),
    "llama3": (LLAMA3, {token: 128000 + i for i, token in enumerate(_LLAMA3)}),
    "qwen2": (QWEN2, {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}),
})  # fmt: skip
NFC_RANK_FILES = frozenset({"qwen2"})


# How long a regular expression may look at one text: so long that only one that backtracks for ever is stopped.
SPLIT_SECONDS = 60.0
SPLIT_SECONDS_A_CHAR = 1e-3


def pattern_text(pattern: str) -> str:
    """Return the regular expression that a pattern's name stands for; any other string is one itself.

    Raises:
        TokenizerError: It is no string, or letters and digits only: a name that is not known, since as a regular
            expression it would cut texts at that very word.
    """
    if not isinstance(pattern, str) or (pattern not in PATTERNS and re.fullmatch(r"\w+", pattern)):
        raise TokenizerError(f"pattern={pattern!r} is neither a regular expression nor one of {', '.join(PATTERNS)}.")
    return PATTERNS.get(pattern, pattern)


@lru_cache(maxsize=16)
def splitter(pattern: str) -> Callable[[str], list[str]] | None:
    """Return a function that cuts a text into pieces, or ``None`` if C does it for this pattern.

    Text between two matches is a piece of its own, as with Hugging Face's "Isolated"; tiktoken drops it.

    Raises:
        TokenizerError: The ``regex`` package is not installed, or the pattern is not a regular expression.
    """
    if pattern in NATIVE:
        return None
    try:
        import regex
    except ImportError:
        raise TokenizerError("This vocabulary's split pattern needs the package regex: pip install regex.") from None
    try:
        compiled = regex.compile(pattern)
    except (regex.error, RecursionError) as error:
        raise TokenizerError(f"The split pattern {pattern!r} is not a regular expression: {error}.") from None

    def pieces(text: str) -> list[str]:
        cuts = {0, len(text)}
        try:
            for match in compiled.finditer(text, timeout=SPLIT_SECONDS + SPLIT_SECONDS_A_CHAR * len(text)):
                cuts |= {match.start(), match.end()}
        except TimeoutError:
            raise TokenizerError(
                f"The split pattern {pattern!r} does not come to an end on a text of {len(text)} characters, after character "
                f"{max(cuts - {len(text)})}: it tries ever more ways to match. Write it without nested repetitions.") from None
        bounds = sorted(cuts)
        return [text[begin:end] for begin, end in zip(bounds, bounds[1:])]

    return pieces
