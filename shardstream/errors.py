"""Every error shardstream raises on purpose, each also the builtin that fits.

All derive from :class:`ShardstreamError`, so ``except ss.ShardstreamError`` catches what is
ours and nothing else. What is known of the place is in attributes and in the message:

=========  =====================================================================
attribute  meaning
=========  =====================================================================
shard      URL of the shard, or its sid
block      number of the block in the shard
key        the sample's key (files layout) or row number (blocks layout)
field      the column
offset     byte offset in the shard where the problem was seen
=========  =====================================================================

No message or place holds what may be secret in a URL: users, passwords and queries are left out of it.
"""

from __future__ import annotations

import re

PLACES = ("shard", "block", "key", "field", "offset")
# Linear in the text, which may be a transform's error with a megabyte of data in it.
WORD = re.compile(r"[^\s'\"<>]+")
USER = re.compile(r"://[^\s/'\"<>]+@")
HEADER = re.compile(r"(authorization|x-amz-security-token|x-amz-[a-z-]{0,64}?key[a-z-]{0,64})(['\"]?\s{0,8}[:=]\s*)[^\n]*", re.I)


def scrubbed(text: str) -> str:
    """Return a message without what may be secret: queries and users of URLs, signed headers."""
    if "://" in text:
        text = USER.sub("://", WORD.sub(_without_query, text))
    return HEADER.sub(r"\1\2...", text)


def _without_query(word: re.Match) -> str:
    scheme, mark, place = word[0].partition("://")
    return scheme + mark + place.partition("?")[0]


class ShardstreamError(Exception):
    """Base of all errors of this library; carries where it happened."""

    def __init__(self, message: str, *, shard: str | None = None, block: int | None = None, key=None,
                 field: str | None = None, offset: int | None = None):  # fmt: skip
        self.message = scrubbed(message)
        super().__init__(self.message)
        self.shard, self.block, self.key, self.field, self.offset = shard, block, key, field, offset

    @property
    def shard(self) -> str | None:
        return self._shard

    @shard.setter
    def shard(self, shard: str | None) -> None:  # also by those who learn later where it happened
        self._shard = None if shard is None else scrubbed(shard)

    def __str__(self) -> str:
        places = [f"{name} {value}" for name in PLACES if (value := getattr(self, name)) is not None]
        return f"{self.message} [{', '.join(places)}]" if places else self.message

    def __reduce__(self):
        # Exceptions cross process boundaries (DataLoader workers, packing jobs) with their place.
        return _rebuild, (type(self), self.message, {name: getattr(self, name) for name in PLACES}, self._extra())

    def _extra(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in (*PLACES, "_shard", "message")}


def _rebuild(kind: type, message: str, places: dict, extra: dict) -> ShardstreamError:
    error = kind.__new__(kind)
    ShardstreamError.__init__(error, message, **places)
    error.__dict__.update(extra)
    return error


class ConfigError(ShardstreamError, ValueError):
    """An argument or a configuration value is not legal."""


class SchemaError(ShardstreamError, ValueError):
    """A schema is malformed, or two schemas that must agree do not."""


class SampleError(ShardstreamError, ValueError):
    """A sample given to a writer does not fit the schema; nothing of it was written."""


class RowErrors(SampleError):
    """Rows that a batched transform can't use: ``errors`` has the SampleError of each, by its number; the message is
    that of the first.

    Where ``on_error="skip"``, a stream leaves these rows out and calls the transform again.
    """

    def __init__(self, errors: dict[int, SampleError]):
        if not errors or not all(isinstance(error, SampleError) for error in errors.values()):
            raise ConfigError(f"RowErrors takes a dict of row to SampleError, with one row at least, not {errors!r:.100}.")
        first = next(iter(errors.values()))
        super().__init__(first.message, key=first.key, field=first.field)
        self.errors = errors


class EmptyDatasetError(ShardstreamError, ValueError):
    """A dataset without samples, where at least one is needed."""


class DatasetNotFoundError(ShardstreamError, FileNotFoundError):
    """There is neither a dataset nor a shard at this URL."""


class DatasetError(ShardstreamError, ValueError):
    """A dataset's log or fold breaks its format's rules, or is of a newer version."""


class ShardError(ShardstreamError, ValueError):
    """A shard is truncated, corrupt, or of a format version unknown here."""


class ShardNotFoundError(ShardstreamError, FileNotFoundError):
    """A shard that the log names is missing."""


class ChecksumError(ShardError):
    """Stored bytes do not match their CRC-32C."""


class CodecError(ShardstreamError, ValueError):
    """An encoded column cannot be decoded, or values cannot be encoded."""


class UnsafeFieldError(ShardstreamError, PermissionError):
    """Decoding this field would execute code (pickle), and ``allow_unsafe=True`` was not given."""


class StorageError(ShardstreamError, OSError):
    """The object store or file system failed for good; the cause is chained."""


class StorageRefused(StorageError):
    """The store answered that it will not do this, as for permission or a missing bucket; nothing was changed."""


class Conflict(ShardstreamError, RuntimeError):
    """A commit's precondition no longer holds; nothing was committed."""


class ProducerFenced(Conflict):
    """A newer instance of the same producer has claimed the dataset; this one must stop."""


class StateError(ShardstreamError, ValueError):
    """A ``state_dict`` is malformed, or belongs to another dataset or order."""


class TransformError(ShardstreamError, RuntimeError):
    """A user's transform failed; its own exception is chained."""


class TokenizerError(ShardstreamError, ValueError):
    """A vocabulary or a text cannot be used for tokenization; ``index`` is the text's number in the batch."""

    def __init__(self, message: str, *, index: int | None = None, **places):
        super().__init__(message, **places)
        self.index = index


class TextError(ShardstreamError, ValueError):
    """A text cannot be hashed; ``index`` is its number in the batch."""

    def __init__(self, message: str, *, index: int | None = None, **places):
        super().__init__(message, **places)
        self.index = index


class WorkerError(ShardstreamError, RuntimeError):
    """A worker process ended before its rows were made, or failed in a way that has no error of its own."""
