"""Documents to sequences of one length, for training without padding; every token comes exactly once.

====================  ==================================================================================
``concatenate``       documents end to end, cut every ``length`` tokens: all sequences are full but the last
``best_fit``          documents longer than ``length`` are cut, and nothing else is: the pieces are put together
                      so that they fill sequences as well as can be done at once (``csrc/include/ss_sequences.h``)
====================  ==================================================================================

A sequence keeps the borders of its documents, so that attention and position ids can respect them.
What comes out is a function of the documents given. ``tests/twins/sequences.py`` is the readable twin.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from shardstream._native import sequences as native

MAX_LENGTH = native.MAX_LENGTH


class Layout(NamedTuple):
    """The pieces of documents that sequences are made of, in the order of the sequences; all int64.

    Attributes:
        document, begin, length: Piece ``i`` is ``length[i]`` tokens of a document, from its token ``begin[i]`` on.
        offsets: Sequence ``s`` is made of pieces ``offsets[s]`` to ``offsets[s + 1]``.
    """

    document: np.ndarray
    begin: np.ndarray
    length: np.ndarray
    offsets: np.ndarray


class Sequences(NamedTuple):
    """Sequences end to end, each ragged column as ``(values, offsets)``.

    Attributes:
        ids: The tokens.
        positions: int32, of each token in its piece of a document, from 0; ``offsets`` are those of ``ids``.
        borders: int32, where each piece begins in its sequence, and, last, where the sequence ends: for attention
            that stays within documents (``cu_seqlens``).
    """

    ids: tuple[np.ndarray, np.ndarray]
    positions: tuple[np.ndarray, np.ndarray]
    borders: tuple[np.ndarray, np.ndarray]


def concatenate(lengths: np.ndarray, length: int) -> Layout:
    """Return the layout of documents end to end, cut every ``length`` tokens."""
    ends = np.cumsum(lengths, dtype=np.int64)
    starts, total = ends - lengths, int(ends[-1]) if len(ends) else 0
    begins = np.union1d(starts[lengths > 0], np.arange(0, total, length))
    document = (
        np.searchsorted(starts, begins, "right") - 1
    )  # of empty ones that begin at the same place the last, which is none
    num_sequences = -(-total // length)
    offsets = np.searchsorted(begins, np.arange(num_sequences + 1) * length)
    return Layout(document, begins - starts[document], np.diff(begins, append=total), offsets)


def best_fit(lengths: np.ndarray, length: int) -> Layout:
    """Return the layout in which only documents longer than ``length`` are cut.

    Sequences are in the order of their first pieces, and so are the pieces in each.
    """
    num_pieces = -(-lengths // length)
    document = np.repeat(np.arange(len(lengths)), num_pieces)
    number = np.arange(len(document)) - np.repeat(np.cumsum(num_pieces) - num_pieces, num_pieces)
    begin = number * length
    pieces = np.minimum(lengths[document] - begin, length)
    sequence, _ = native.best_fit(np.ascontiguousarray(pieces, np.int64), length)
    _, first, sequence, count = np.unique(sequence, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first[sequence], kind="stable")
    offsets = np.concatenate(([0], np.cumsum(count[np.argsort(first)])))
    return Layout(document[order], begin[order], pieces[order], offsets)


METHODS = {"concatenate": concatenate, "best_fit": best_fit}


def arrange(values: np.ndarray, offsets: np.ndarray, layout: Layout) -> Sequences:
    """Return the sequences of a layout; document ``i`` is ``values[offsets[i]:offsets[i + 1]]``."""
    ends = np.cumsum(layout.length)
    starts = np.concatenate(([0], ends))  # of pieces, and the end of all
    positions = np.arange(starts[-1]) - np.repeat(starts[:-1], layout.length)
    elements = np.repeat(np.asarray(offsets, np.int64)[layout.document] + layout.begin, layout.length) + positions
    bounds = starts[layout.offsets]  # of sequences
    num_pieces = np.diff(layout.offsets)
    inside = np.repeat(bounds[:-1], num_pieces)
    borders = np.insert(starts[:-1] - inside, layout.offsets[1:], np.diff(bounds)).astype(np.int32)
    border_offsets = layout.offsets + np.arange(len(layout.offsets))
    return Sequences((values[elements], bounds), (positions.astype(np.int32), bounds), (borders, border_offsets))
