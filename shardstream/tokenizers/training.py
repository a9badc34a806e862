"""Training: from texts to the tokenizer that Hugging Face's ``BpeTrainer`` would make of them, in C.

Three steps: texts are cut into pieces by the pattern and counted; the most frequent pair of tokens
is merged until there are enough tokens; the merges become a :class:`Vocabulary`. The first two are
``csrc/include/ss_bpe_train.h``, whose head states the rules; ``tests/twins/bpe_train.py`` is readable.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from shardstream._native import bpe as native
from shardstream._native.bpe_train import Trainer
from shardstream._native.pretok import MAX_TEXT_NBYTES
from shardstream.errors import TokenizerError
from shardstream.progress import byte_bar, count_bar
from shardstream.tokenizers.batch import Text, to_bytes
from shardstream.tokenizers.files import BYTE_CHARS, byte_chars
from shardstream.tokenizers.patterns import NATIVE, WHOLE, pattern_text, splitter
from shardstream.tokenizers.tokenizer import Tokenizer
from shardstream.tokenizers.vocab import Vocabulary

# Ids of single bytes are in the order of GPT-2's printable characters, as Hugging Face sorts its alphabet.
ALPHABET = bytes(sorted(range(256), key=lambda byte: ord(BYTE_CHARS[byte])))
FEED_NBYTES = 4 << 20  # of text a call into C
FILE_BLOCK_NBYTES = 16 << 20
MERGES_AT_ONCE = 256  # between two looks at Ctrl-C and the progress bar

TEXT = (str, bytes, bytearray, memoryview)


class Openable(Protocol):
    """A file that is elsewhere: ``open()`` gives it as a binary stream."""

    def open(self) -> BinaryIO: ...


TextOrFile = Text | os.PathLike | Openable


def train(texts_or_files: Iterable[TextOrFile] | os.PathLike, vocab_size: int, pattern: str = "cl100k", *,
          special_tokens: Sequence[str] = (), progress: bool = True) -> Tokenizer:  # fmt: skip
    """Return a tokenizer with the merges that Hugging Face's ``BpeTrainer`` learns from the same texts.

    Single bytes are the first 256 ids, merges follow in their order, special tokens come last. The same texts, in
    any order, give the same tokenizer. It encodes as ``tokenizers`` does; ``save()`` writes it for either library.

    Args:
        texts_or_files: Strings or bytes are texts, each split on its own; paths (``pathlib.Path``) are files of
            UTF-8, each one text, read 16 MiB at a time, and so is what has an ``open()``, such as the items of
            ``fsspec.open_files("s3://bucket/*.txt")``. An iterator is read once.
        vocab_size: Ids in all. There are fewer if the texts have no pair left to merge.
        pattern: Name of a split pattern (``patterns.PATTERNS``) or a regular expression, which is slower.
        special_tokens: Texts that get ids of their own. In the training texts they are text like any other.
        progress: Show a bar on standard error if that is a terminal.

    Memory: the different pieces of the texts (words, mostly) take up to 32 bytes a byte and 52 more each, the pairs
    of tokens that ever stood side by side 100 bytes each; the texts themselves are not kept.

    Raises:
        TokenizerError: An argument is out of its range; a text has more than 1 GiB (``e.index`` says which).
        OSError: A file cannot be read.

    Example:
        >>> tok = ss.tokenizers.train(["low lower lowest"] * 9, vocab_size=262, special_tokens=["<end>"])
        >>> [tok.id_to_token(i) for i in range(256, tok.vocab_size)]
        [b'lo', b'low', b' low', b' lowe', b'st', b'<end>']
    """
    _check(vocab_size, special_tokens)
    pattern = pattern_text(pattern)
    pieces = splitter(pattern)
    trainer = Trainer(NATIVE.get(pattern, "whole"), ALPHABET)
    items = [texts_or_files] if isinstance(texts_or_files, os.PathLike) else texts_or_files
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise TokenizerError("train() takes a list of texts or files; a file is a pathlib.Path.")
    with byte_bar("reading", _nbytes_of(items), progress) as advance:
        for number, texts in _batches(items, pieces is None and pattern != WHOLE):
            values, offsets = _joined(texts if pieces is None else chain.from_iterable(map(_cut_by(pieces), texts)))
            trainer.feed(values, offsets, number)
            advance(sum(map(len, texts)))
    max_tokens = vocab_size - len(special_tokens)
    with count_bar("merging", max_tokens - 256, progress) as show:
        while not trainer.is_done:
            trainer.merge(max_tokens, MERGES_AT_ONCE)
            show(trainer.num_merges)
    return Tokenizer(_vocabulary(trainer.merges(), pattern, special_tokens))


def _check(vocab_size: int, special_tokens: Sequence[str]) -> None:
    if isinstance(special_tokens, str) or not isinstance(special_tokens, Sequence) or not all(isinstance(t, str) and t for t in special_tokens):
        # of a set ids would differ from run to run
        raise TokenizerError("special_tokens is a list of texts that are not empty.")
    if broken := [text for text in special_tokens if to_bytes(text).decode() != text]:
        raise TokenizerError(f"Special token {broken[0]!r} has a lone surrogate.")
    if len(set(special_tokens)) < len(special_tokens):
        raise TokenizerError("A special token is named twice.")
    least = 256 + len(special_tokens)
    if (
        isinstance(vocab_size, bool)
        or not isinstance(vocab_size, int | np.integer)
        or not least <= vocab_size <= native.MAX_TOKENS
    ):
        raise TokenizerError(
            f"vocab_size is from {least} (256 bytes and the special tokens) to {native.MAX_TOKENS}, not {vocab_size!r}."
        )


def _nbytes_of(items: Iterable) -> int | None:
    """Return the bytes of all items, if they can be known without reading."""
    if not isinstance(items, list | tuple) or not all(isinstance(item, (*TEXT, os.PathLike)) for item in items):
        return None
    return sum(os.path.getsize(item) if isinstance(item, os.PathLike) else len(item) for item in items)


def _parts_of(item: TextOrFile, cuttable: bool) -> Iterator[bytes] | None:
    """Return the texts of one item, or ``None`` if it is neither text nor file."""
    if isinstance(item, TEXT):
        return iter((to_bytes(item),))
    if isinstance(item, os.PathLike):
        item = Path(item)
        return _texts_of_file(lambda: open(item, "rb"), str(item), cuttable)
    return _texts_of_file(item.open, str(item), cuttable) if callable(getattr(item, "open", None)) else None


def _batches(items: Iterable[TextOrFile], cuttable: bool) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the number of the first item and the texts of some megabytes; a file may be several texts."""
    batch, nbytes, first = [], 0, 0
    for number, item in enumerate(items):
        parts = _parts_of(item, cuttable)
        if parts is None:
            raise TokenizerError(f"texts[{number}] is neither text nor a path but {type(item).__name__}.", index=number)
        for text in parts:
            batch.append(text)
            nbytes += len(text)
            if nbytes >= FEED_NBYTES:
                yield first, batch
                batch, nbytes, first = [], 0, number + 1
    if batch:
        yield first, batch


def _texts_of_file(opening: Callable[[], BinaryIO], where: str, cuttable: bool) -> Iterator[bytes]:
    """Yield a file in parts whose pieces are those of the whole: cut between lines that are words at both ends.

    After ``x\\n`` and before a letter, with x neither blank nor outside ASCII, every pattern that C knows has a
    border, and looks no further than it. Where there is none, or the pattern is another one, parts grow.
    """
    rest = b""
    with opening() as file:
        while block := file.read(FILE_BLOCK_NBYTES):
            rest += block
            if len(rest) > MAX_TEXT_NBYTES:
                raise TokenizerError(
                    f"{where}: more than {MAX_TEXT_NBYTES} bytes without a place to cut; give its texts one by one."
                )
            if cuttable and (cut := _last_cut(rest)):
                yield rest[:cut]
                rest = rest[cut:]
    if rest:
        yield rest


def _last_cut(data: bytes) -> int:
    """Return the last place where a text can be cut, 0 if there is none."""
    at = len(data) - 1
    while (at := data.rfind(b"\n", 0, at)) > 0:
        if 0x21 <= data[at - 1] < 0x7F and data[at + 1 : at + 2].isalpha():
            return at + 1
    return 0


def _cut_by(pieces):
    def cut(text: bytes) -> Iterator[bytes]:
        return (piece.encode("utf-8", "surrogateescape") for piece in pieces(text.decode("utf-8", "surrogateescape")))

    return cut


def _joined(texts: Iterable[bytes]) -> tuple[bytes, np.ndarray]:
    texts = list(texts)
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=offsets[1:])
    return b"".join(texts), offsets


def _vocabulary(merges: np.ndarray, pattern: str, special_tokens: Sequence[str]) -> Vocabulary:
    tokens = [bytes([byte]) for byte in ALPHABET]
    for left, right in merges.tolist():
        tokens.append(tokens[left] + tokens[right])
    ids = {token: number for number, token in enumerate(tokens)}
    for text in special_tokens:
        if text.encode() in ids or text in map(byte_chars, tokens):
            raise TokenizerError(f"The special token {text!r} is also a token that the texts gave; choose another.")
    return Vocabulary.from_tokens(ids, {text: len(ids) + i for i, text in enumerate(special_tokens)}, merges=merges,
                                  pattern=pattern, whole_piece=False)  # fmt: skip
