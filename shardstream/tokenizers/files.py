"""Files of vocabularies that do not hold their pattern: tiktoken's rank files, GPT-2's pair of files.

=====================================  ==================================================================
file                                   holds
=====================================  ==================================================================
``*.tiktoken``                         a line a token, base64 and rank; neither pattern nor specials
``encoder.json`` + ``vocab.bpe``,      ids as JSON, merges as lines; the pattern is GPT-2's, or that of the
``vocab.json`` + ``merges.txt``        class which ``tokenizer_config.json`` beside them names
=====================================  ==================================================================

``hf.py`` has ``tokenizer.json``. Readers are total: any bytes give a :class:`Vocabulary` or a
:class:`TokenizerError` that says where. In JSON, a token's bytes stand as one printable
character each, by GPT-2's table.

References:
    tiktoken 0.14 ``load.py``; GPT-2 ``encoder.py``, ``bytes_to_unicode``.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from shardstream._native import bpe as native
from shardstream.errors import TokenizerError
from shardstream.tokenizers import patterns
from shardstream.tokenizers.vocab import Vocabulary, tables

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
# Byte -> the character that stands for it in JSON, and back; str.translate() maps others to U+FFFF, which
# Latin-1 cannot encode.
BYTE_CHARS = {**{byte: chr(byte) for byte in _PRINTABLE}, **{byte: chr(256 + i) for i, byte in enumerate(_OTHERS)}}
_CHAR_BYTES = {**dict.fromkeys(_OTHERS, 0xFFFF), **{ord(char): byte for byte, char in BYTE_CHARS.items()}}

_HF_CLASSES = {"Qwen2Tokenizer": (patterns.QWEN2, True), "GPT2Tokenizer": (patterns.GPT2, False)}


def read_ranks(data: bytes, where: str) -> dict[bytes, int]:
    """Return the rank of each token of a ``.tiktoken`` file."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line:
            continue
        code, _, digits = line.partition(b" ")
        try:
            token = binascii.a2b_base64(code)
        except binascii.Error:
            token = b""
        digits = digits.rstrip(b"\r")
        if not token or binascii.b2a_base64(token, newline=False) != code or not digits.isdigit() or len(digits) > 9:
            raise TokenizerError(f"{where}, line {number}: expected a token in base64, one blank and its rank.")
        if token in ranks:
            raise TokenizerError(f"{where}, line {number}: token {token!r} came before.")
        ranks[token] = int(digits)
    return ranks


def ranks_file(vocab: Vocabulary, path: Path) -> bytes:
    """Return what a ``.tiktoken`` file holds, which errors call ``path``; tiktoken, with the same pattern, gives the same ids.

    Raises:
        TokenizerError: The vocabulary's merges are not those that ids as ranks would make; or it has a normal form.
    """
    if vocab.nfc:
        raise TokenizerError(
            f"{path}: a .tiktoken file cannot say that texts are put in normal form C first. Write a tokenizer.json.")  # fmt: skip
    special = set(vocab.special_tokens.values())
    tokens = {token: number for token, number in vocab.tokens().items() if number not in special}
    if vocab.merges is not None:
        halves = tables(vocab).halves()
        made = np.unique(np.fromiter((n for t, n in tokens.items() if len(t) > 1), np.int64))
        if not np.array_equal(halves[made], vocab.merges):
            raise TokenizerError(
                f"{path}: a .tiktoken file has no list of merges, ids are ranks; this vocabulary's list has another "
                "order or merges one token in two ways. Write a tokenizer.json.")  # fmt: skip
    lines = (binascii.b2a_base64(token, newline=False) + b" %d\n" % number for token, number in tokens.items())
    return b"".join(lines)


def byte_chars(token: bytes) -> str:
    """Return the characters that stand for a token's bytes in JSON."""
    return token.decode("latin-1").translate(BYTE_CHARS)


def _token_bytes(chars: str) -> bytes | None:
    """Return the bytes that the characters stand for, or ``None`` if one stands for none."""
    try:
        return chars.translate(_CHAR_BYTES).encode("latin-1")
    except UnicodeEncodeError:
        return None


def read_json_bytes(data: bytes, where: str):
    """Return what a JSON file holds."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{where} is not JSON: {error}.") from None


def need(condition: bool, where: str, rule: str) -> None:
    """Raise a TokenizerError about the file ``where`` unless the condition holds."""
    if not condition:
        raise TokenizerError(f"{where}: {rule}.")


def read_ids(vocab, special_tokens: Mapping[str, int], where: str) -> dict[bytes, int]:
    """Return the id of each token of a JSON vocabulary; special ones may be written as they are."""
    need(isinstance(vocab, dict), where, "the vocabulary is an object of token: id")
    ids = {}
    for chars, number in vocab.items():
        need(type(number) is int and 0 <= number < native.MAX_TOKENS, where, f"the id of {chars!r} is {number!r}")
        token = _token_bytes(chars)
        if token is None and special_tokens.get(chars) == number:
            continue
        need(token is not None, where, f"token {chars!r} has a character that stands for no byte")
        ids[token] = number
    return ids


def read_merges(pairs, ids: Mapping[bytes, int], where: str) -> np.ndarray:
    """Return merges as ids; each is ``"left right"`` or ``["left", "right"]``."""
    need(isinstance(pairs, list), where, "the merges are a list")
    merges = np.empty((len(pairs), 2), np.uint32)
    for number, pair in enumerate(pairs):
        halves = pair.split(" ") if isinstance(pair, str) else pair
        tokens = [_token_bytes(half) for half in halves if isinstance(half, str)] if isinstance(halves, list) else []
        if len(tokens) != 2 or not all(token in ids for token in tokens):
            raise TokenizerError(f"{where}: merge {number} is {pair!r}, which is not two tokens.")
        merges[number] = ids[tokens[0]], ids[tokens[1]]
    return merges


def read_pair(encoder: bytes, merges: bytes, pattern: str, nfc: bool, special_tokens, where: str) -> Vocabulary:
    """Return the vocabulary of GPT-2's two files, ``encoder.json`` and ``vocab.bpe`` or the like."""
    ids = read_ids(read_json_bytes(encoder, where), special_tokens, where)
    try:
        lines = merges.decode().split("\n")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{where}: the merges are not UTF-8 at byte {error.start}.") from None
    pairs = [line.rstrip("\r") for line in lines if line and not line.startswith("#version")]
    return Vocabulary.from_tokens(ids, special_tokens, merges=read_merges(pairs, ids, where), pattern=pattern,
                                  whole_piece=False, nfc=nfc)  # fmt: skip


def special_tokens_of(folder: Path) -> tuple[dict[str, int], str | None]:
    """Return what ``tokenizer_config.json`` and ``added_tokens.json`` say: special tokens and the tokenizer's class."""
    special: dict[str, int] = {}
    kind = None
    if (path := folder / "added_tokens.json").is_file():
        content = read_json_bytes(path.read_bytes(), str(path))
        special |= content if isinstance(content, dict) else {}
    if (path := folder / "tokenizer_config.json").is_file():
        config = read_json_bytes(path.read_bytes(), str(path))
        kind = config.get("tokenizer_class") if isinstance(config, dict) else None
        added = config.get("added_tokens_decoder") if isinstance(config, dict) else None
        for number, token in added.items() if isinstance(added, dict) else ():
            if number.isdecimal() and isinstance(token, dict):
                special[str(token.get("content"))] = int(number)
    need(all(type(number) is int for number in special.values()), str(folder), "the id of a special token is a number")
    return special, kind


def read_folder_pair(encoder: Path, merges: Path, pattern: str | None, special_tokens) -> Vocabulary:
    """Return the vocabulary of a pair of files with what the files beside them tell."""
    found, kind = special_tokens_of(encoder.parent)
    known, nfc = _HF_CLASSES.get(kind or "GPT2Tokenizer", (None, False))
    if pattern is None and known is None:
        raise TokenizerError(f"{encoder.parent} is of class {kind}, whose pattern is not known here; give pattern=.")
    data = encoder.read_bytes()
    if special_tokens is None:
        special_tokens = found
        if not found and b"<|endoftext|>" in data:
            ids = read_json_bytes(data, str(encoder))
            is_token = isinstance(ids, dict) and "<|endoftext|>" in ids  # and not only part of one
            special_tokens = {"<|endoftext|>": ids["<|endoftext|>"]} if is_token else {}
    return read_pair(data, merges.read_bytes(), pattern or known, nfc, special_tokens, str(encoder.parent))
