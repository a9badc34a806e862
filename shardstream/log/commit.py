"""The commit rule, free of any store: compare-and-swap on a sequence of put-if-absent objects.

A commit is a generator. It yields what it wants done, :class:`Put` or :class:`Get`, and is sent
the outcome; so ``tests/test_commit_model.py`` runs the very code that commits through every
interleaving of writers, lost replies, late requests and crashes.

Why it is exact. Entry n, once there, never changes, and a commit puts n only while it knows
all entries below n. An outcome that is unknown is settled by reading n: if it is absent, the same
bytes are put there again, so that whichever of our own requests arrives first creates the same
entry; n is never left before an entry stands there, so a late request of ours can only meet an
occupied number. Hence no gaps, and each commit id at most once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum

from shardstream.errors import Conflict
from shardstream.log import entries
from shardstream.log.entries import Entry
from shardstream.log.opening import Head
from shardstream.log.state import State, Step, fold


class Outcome(Enum):
    """What is known after a put-if-absent."""

    CREATED = "created"
    EXISTS = "exists"  # something stands there; after a lost reply perhaps our own
    UNKNOWN = "unknown"  # the reply was lost, or says nothing about it


@dataclass(frozen=True)
class Put:
    """Create entry ``version`` if it is absent; answered by an :class:`Outcome`."""

    version: int
    data: bytes
    again: bool  # the same bytes have been sent before


@dataclass(frozen=True)
class Get:
    """Read entry ``version``; answered by its bytes, or None when it is absent."""

    version: int


Propose = Callable[[State], Entry]


def create(entry: Entry) -> Generator[Put | Get, Outcome | bytes | None, Head]:
    """Put ``entry`` as entry 0; returns the head after the entry 0 that stands, this one or another's."""
    stands = yield from _settle(entry)
    return Head(fold(None, [Step.of(stands)]), (Step.of(stands),))


def commit(head: Head, propose: Propose) -> Generator[Put | Get, Outcome | bytes | None, Head]:
    """Append one entry; returns the head that ends in it.

    ``propose(state)`` returns the entry that would follow ``state``, or raises because a precondition
    fails: it is asked again after every entry taken in, and must keep the same commit id. A precondition
    that fails is final only against the newest state: ``head`` may be old.
    """
    while True:
        try:
            entry = propose(head.state)
        except Conflict:
            newest = yield from _read_on(head)
            if newest is head:
                raise
            head = newest
            continue
        stands = yield from _settle(entry)
        head = head.after([Step.of(stands)])
        if stands.commit == entry.commit:
            return head
        # Who lost a race is often further behind; reading on is cheaper than losing again with a put.
        head = yield from _read_on(head)


def _read_on(head: Head) -> Generator[Get, bytes | None, Head]:
    """Take in the entries that follow ``head`` until one is absent; ``head`` itself if none follows."""
    while (found := (yield Get(head.state.version + 1))) is not None:
        head = head.after([Step.of(entries.decode(found, head.state.version + 1))])
    return head


def _settle(entry: Entry) -> Generator[Put | Get, Outcome | bytes | None, Entry]:
    """Put ``entry`` at its number until an entry stands there; returns the one that does."""
    data = entries.encode(entry)
    outcome = yield Put(entry.version, data, again=False)
    while outcome is not Outcome.CREATED:
        found = yield Get(entry.version)
        if found is not None:
            return entries.decode(found, entry.version)
        outcome = yield Put(entry.version, data, again=True)
    return entry
