"""What ``encode_batch`` is given, as the bytes that C reads: chunks of texts, end to end.

The plain way is one join per chunk. Special tokens, normal forms and patterns unknown to C
cut texts into segments first (:func:`segmented`), each of which C takes as a text of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from os.path import commonprefix
from typing import NamedTuple

import numpy as np

from shardstream.errors import TokenizerError

Text = str | bytes
Texts = Sequence[Text] | tuple[np.ndarray, np.ndarray]


class Segments(NamedTuple):
    """Bytes to encode, and how their ids become those of texts.

    Attributes:
        values, offsets: Segment ``i`` is ``values[offsets[i]:offsets[i + 1]]``.
        bounds: int64 ``(num_texts + 1,)``; text ``i`` is made of segments ``bounds[i]`` to ``bounds[i + 1]``. ``None``:
            segments are texts.
        special_at, special_ids: Segments that are empty and stand for a special token, and its id.
    """

    values: bytes | np.ndarray
    offsets: np.ndarray
    bounds: np.ndarray | None = None
    special_at: np.ndarray | None = None
    special_ids: np.ndarray | None = None


class Specials(NamedTuple):
    """Which special tokens of one call are ids, and which are errors."""

    ids: Mapping[str, int]
    allowed: re.Pattern | None
    disallowed: re.Pattern | None
    prefix: str  # that all of them begin with: text without it has none

    @classmethod
    def choose(cls, known: Mapping[str, int], allowed: Collection[str] | str,
               disallowed: Collection[str] | str) -> Specials | None:  # fmt: skip
        """Return what tiktoken's two arguments ask for; ``None`` if nothing.

        Raises:
            TokenizerError: ``allowed`` has a token that is not special in this vocabulary; or one of both is no
                collection of texts.
        """
        allowed = frozenset(known) if allowed == "all" else _tokens_of("allowed_special", allowed)
        disallowed = frozenset(known) - allowed if disallowed == "all" else _tokens_of("disallowed_special", disallowed)
        if unknown := allowed - frozenset(known):
            raise TokenizerError(f"{sorted(unknown)[0]!r} is not a special token of this vocabulary.")
        if not allowed and not disallowed:
            return None
        return cls(known, _finder(allowed), _finder(disallowed), commonprefix([*allowed, *disallowed]))


def _tokens_of(name: str, tokens: Collection[str] | str) -> frozenset[str]:
    """Return the texts that an argument names; a single text is refused, whose characters would be taken for texts."""
    if isinstance(tokens, str | bytes) or not isinstance(tokens, Iterable) or not all(isinstance(t, str) for t in tokens):
        raise TokenizerError(f"{name} is a collection of special tokens or 'all', not {tokens!r}.")
    return frozenset(tokens)


@lru_cache(maxsize=64)
def _finder(tokens: frozenset[str]) -> re.Pattern | None:
    # Longest first: of two tokens that begin at the same place the longer one is meant.
    return re.compile("|".join(map(re.escape, sorted(tokens, key=lambda t: (-len(t), t))))) if tokens else None


def as_batch(texts: Texts) -> Texts:
    """Return ``texts`` as a list, or as ``(values, offsets)`` of the right types.

    Raises:
        TokenizerError: It is one text, or its arrays do not have the right types.
    """
    if isinstance(texts, tuple) and len(texts) == 2 and isinstance(texts[0], np.ndarray):
        values, offsets = texts[0], np.ascontiguousarray(texts[1])
        if values.dtype != np.uint8 or values.ndim != 1 or offsets.ndim != 1 or not len(offsets) or offsets.dtype.kind not in "iu":
            raise TokenizerError("A batch of arrays is uint8 (num_bytes,) and int64 (num_texts + 1,).")
        return np.ascontiguousarray(values), offsets.astype(np.int64, copy=False)
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable) or getattr(texts, "ndim", 1) == 0:
        raise TokenizerError("encode_batch() takes a list of texts, encode() takes one; this is "
                             f"{type(texts).__name__}.")  # fmt: skip
    return texts if isinstance(texts, list) else list(texts)


def chunks_of(batch: Texts, nbytes: int, num_ends: int = 0) -> list[range]:
    """Return ranges of texts of about ``nbytes`` characters or bytes each; none if there are no texts.

    Args:
        num_ends: How many ranges' worth of text at the end is cut into quarters, so that threads end together.

    Raises:
        TokenizerError: A text is neither str nor bytes; ``e.index`` says which.
    """
    if isinstance(batch, tuple):
        ends = batch[1][1:] - batch[1][0]
    else:
        for kind in set(map(type, batch)):
            if not issubclass(kind, str | bytes | bytearray | memoryview):
                index = next(i for i, text in enumerate(batch) if type(text) is kind)
                raise TokenizerError(f"texts[{index}] must be a str or bytes, not {kind.__name__}.", index=index)
        ends = np.cumsum(np.fromiter(map(len, batch), np.int64, len(batch)))
    if not len(ends):
        return []
    total, quarter = int(ends[-1]), nbytes // 4
    whole = max(total - num_ends * nbytes, 0) // nbytes * nbytes if num_ends and total > nbytes else total
    places = np.concatenate([np.arange(nbytes, whole, nbytes), np.arange(max(whole, quarter), total, quarter)])
    cuts = np.searchsorted(ends, places) + 1
    bounds = sorted({0, len(ends), *cuts.tolist()})
    return [range(begin, end) for begin, end in zip(bounds, bounds[1:])]


def to_bytes(text: Text) -> bytes:
    """Return the UTF-8 of a text; pairs of surrogates are joined and lone ones U+FFFD, as in tiktoken."""
    if not isinstance(text, str):
        return bytes(text)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _without_surrogates(text).encode()


def _without_surrogates(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _to_str(text: Text) -> str:
    """Return a text as a string in which surrogates stand for bytes that are not UTF-8."""
    if isinstance(text, str):
        return text if text.isascii() else _without_surrogates(text)
    return bytes(text).decode("utf-8", "surrogateescape")


def _joined(parts: list[bytes]) -> tuple[bytes, np.ndarray]:
    return b"".join(parts), _offsets(map(len, parts), len(parts))


def _offsets(lengths: Iterable[int], num: int) -> np.ndarray:
    offsets = np.zeros(num + 1, np.int64)
    np.cumsum(np.fromiter(lengths, np.int64, num), out=offsets[1:])
    return offsets


def plain(batch: Texts, chunk: range) -> Segments:
    """Return the texts of a chunk as they are."""
    if isinstance(batch, tuple):
        return Segments(batch[0], batch[1][chunk.start : chunk.stop + 1])
    texts = batch[chunk.start : chunk.stop]
    try:
        ascii_only = all(map(str.isascii, texts))  # a flag of each string; joined first, one other character widens all
    except TypeError:  # some are bytes
        ascii_only = False
    if ascii_only:  # one character, one byte: nothing to do text by text
        return Segments("".join(texts).encode(), _offsets(map(len, texts), len(texts)))
    return Segments(*_joined([to_bytes(text) for text in texts]))


def segmented(batch: Texts, chunk: range, specials: Specials | None, normalize: Callable[[str], str],
              split: Callable[[str], list[str]]) -> Segments:  # fmt: skip
    """Return the texts of a chunk cut at special tokens, each part between normalized and split.

    Raises:
        TokenizerError: A text has a disallowed special token; ``e.index`` says which.
    """
    segments, bounds, special_at, special_ids = [], [0], [], []
    for number, text in _strings(batch, chunk):
        for part, special in _cut(text, specials, number):
            segments += split(normalize(part)) if part else ()
            if special is not None:
                special_at.append(len(segments))
                special_ids.append(special)
                segments.append("")
        bounds.append(len(segments))
    values, offsets = _joined([segment.encode("utf-8", "surrogateescape") for segment in segments])
    return Segments(values, offsets, np.array(bounds), np.array(special_at, np.int64), np.array(special_ids, np.uint32))


def _strings(batch: Texts, chunk: range) -> Iterator[tuple[int, str]]:
    if isinstance(batch, tuple):
        values, offsets = batch
        for number in chunk:
            begin, end = offsets[number : number + 2].tolist()
            if not 0 <= begin <= end <= len(values):  # C checks those that come to it as they are
                raise TokenizerError(f"texts[{number}]: its offsets {begin}, {end} descend or leave the buffer.",
                                     index=number)  # fmt: skip
            yield number, _to_str(values[begin:end].tobytes())
    else:
        for number in chunk:
            yield number, _to_str(batch[number])


def _cut(text: str, specials: Specials | None, number: int) -> Iterator[tuple[str, int | None]]:
    """Yield the parts of a text, each with the id of the special token after it."""
    if specials is None or specials.prefix not in text:
        yield text, None
        return
    if specials.disallowed is not None and (found := specials.disallowed.search(text)):
        raise TokenizerError(
            f"texts[{number}] has the special token {found.group()!r}. Pass allowed_special={{{found.group()!r}}} to "
            "encode it as its id, or disallowed_special=() to encode it as text.", index=number)  # fmt: skip
    begin = 0
    for found in specials.allowed.finditer(text) if specials.allowed is not None else ():
        yield text[begin : found.start()], specials.ids[found.group()]
        begin = found.end()
    yield text[begin:], None


def joined(parts: list[Segments]) -> Segments:
    """Return what :func:`with_specials` needs of the segments of consecutive chunks, without their bytes."""
    starts = np.cumsum([0, *(len(part.offsets) - 1 for part in parts)])
    return Segments(
        b"", np.zeros(1, np.int64),
        np.concatenate([parts[0].bounds[:1], *(part.bounds[1:] + start for part, start in zip(parts, starts))]),
        np.concatenate([part.special_at + start for part, start in zip(parts, starts)]),
        np.concatenate([part.special_ids for part in parts]),
    )  # fmt: skip


def with_specials(segments: Segments, ids: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids and offsets of texts, made of those of their segments."""
    if segments.bounds is None:
        return ids, offsets
    ids = np.insert(ids, offsets[segments.special_at], segments.special_ids)
    return ids, offsets[segments.bounds] + np.searchsorted(segments.special_at, segments.bounds)
