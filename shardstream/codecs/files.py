"""The files layout: samples as runs of tar members, WebDataset's convention (docs/FORMAT.md, section 5).

Writing, ``encode_sample`` turns a sample into members; reading, ``read_block`` finds the samples of a block
without copying their bytes, and ``decode_field`` gives a field's value. Values are those of the installed
webdataset package, by its own tables, which are imported when the first field is encoded or decoded.
"""

from __future__ import annotations

import functools
import io
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from shardstream._native import tar
from shardstream.codecs import compression
from shardstream.errors import CodecError, SampleError, ShardError, UnsafeFieldError

UNSAFE_EXTENSIONS = ("pickle", "pkl", "pyd", "pth")
# of a .gz or .npz field, decompressed; nor more than compression.limit_of() allows for its size
MAX_FIELD_NBYTES = 2**30
CHECKED_VALUE_NBYTES = 64
META_NAME = re.compile(r"__[^/]*__(/|\Z)")


# -- reading --------------------------------------------------------------------------------------


class FileSamples(Sequence):
    """The samples of one block: ``samples[i]`` is ``(key, {field: memoryview})``.

    The views are read-only and show the block's own bytes, which live as long as one of them does.
    """

    def __init__(self, buffer: np.ndarray, base_offset: int, table: tar.MemberTable, shard: str | None = None):
        members = table.members
        is_field = members["kind"] == tar.FIELD
        if not is_field.all():
            members = members[is_field]
        # data_begin to key_nbytes; a sample's rows become one list in one step.
        self._rows = members.view(np.int64).reshape(len(members), -1)[:, 1:6]
        self._bounds = [*np.flatnonzero(members["starts_sample"]).tolist(), len(members)]
        self._view = memoryview(buffer).cast("B").toreadonly()
        self._names = table.names.tobytes()
        self._base_offset = base_offset
        self._shard = shard

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, i: int) -> tuple[str, dict[str, memoryview]]:
        bounds = self._bounds
        if i < 0:
            i += len(bounds) - 1
        if not 0 <= i < len(bounds) - 1:
            raise IndexError(f"the block has {len(self)} samples")
        first, last = bounds[i], bounds[i + 1]
        base, names, view = self._base_offset, self._names, self._view
        fields = {}
        for begin, nbytes, name, name_nbytes, key_nbytes in self._rows[first:last].tolist():
            begin -= base
            fields[_field_name(names[name + key_nbytes + 1 : name + name_nbytes])] = view[begin : begin + nbytes]
        key = names[name : name + key_nbytes].decode("utf-8", "surrogateescape")
        if len(fields) != last - first or "__key__" in fields:
            raise ShardError("a field comes twice in a sample, or is named __key__.", shard=self._shard, key=key)
        return key, fields


@functools.lru_cache(4096)
def _field_name(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape").lower()


def read_block(buffer, base_offset: int = 0, num_samples: int | None = None, shard: str | None = None) -> FileSamples:
    """Return the samples of a block, which must be whole members standing at ``base_offset`` of the shard.

    Args:
        buffer: The block's bytes, contiguous; nothing is copied. A compressed shard is one block: it is
            decompressed, and offsets are then those of what it holds.
        num_samples: How many samples the index counts; another number is an error.
        shard: Named in errors.

    Raises:
        ShardError: The bytes are no run of whole members, with the offset in the shard; or not so many samples.
    """
    buffer = np.frombuffer(buffer, np.uint8)
    kind = compression.detect(buffer[:16]) if base_offset == 0 else None
    if kind is not None:
        buffer = np.frombuffer(compression.decompress(buffer, kind, shard=shard), np.uint8)
    samples = FileSamples(buffer, base_offset, tar.scan(buffer, base_offset, shard), shard)
    if num_samples is not None and len(samples) != num_samples:
        raise ShardError(
            f"the block holds {len(samples)} samples, the index counts {num_samples}.", shard=shard, offset=base_offset
        )
    return samples


@functools.cache
def _webdataset():
    """Return webdataset's two tables: decoders by extension, and the function that encodes by extension."""
    from webdataset import autodecode, writer

    return autodecode.decoders, functools.partial(writer.encode_based_on_extension1, handlers=writer.default_handlers)


def decode_field(field: str, data, allow_unsafe: bool = False) -> Any:
    """Return a field's value exactly as webdataset's ``decode()`` gives it; fields it has no decoder for are bytes.

    A ``.gz`` at the end is gunzipped first. Images stay bytes. A field that begins with two underscores is a
    text if it is UTF-8.

    Raises:
        UnsafeFieldError: The field is a pickle or a torch file, and ``allow_unsafe`` is not set.
        CodecError: The bytes can't be decoded, or hold too much (``_limit_of``).
    """
    is_gzipped = ("." + field).endswith(".gz")
    extension = (
        field.removesuffix("gz").removesuffix(".").rpartition(".")[2] if is_gzipped else field.rpartition(".")[2]
    )
    if extension in UNSAFE_EXTENSIONS and not allow_unsafe:
        raise UnsafeFieldError(
            "decoding this field would run code that the shard brings along; pass allow_unsafe=True if you trust "
            "its origin.",
            field=field,
        )
    data = bytes(data)
    if field.startswith("__"):
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data
    try:
        if is_gzipped and data:
            data = bytes(compression.decompress(data, "gz", _limit_of))
        decoder = _webdataset()[0].get(extension)
        if decoder is None:
            return data
        if check := CHECKS.get(extension):
            check(data)
        value = decoder(data)
    except Exception as error:  # the decoders are other packages' and raise what they like, on any bytes
        raise CodecError(f"this field cannot be decoded: {type(error).__name__}: {error}", field=field) from error
    return data if value is None else value  # as webdataset has it: a decoder that gives None has not decoded


def decode_sample(
    key: str, members: Mapping[str, Any], fields: Sequence[str] | None = None, allow_unsafe: bool = False
) -> dict[str, Any]:
    """Return ``{"__key__": key, field: value, ...}`` of the given fields, by default all; errors as
    ``decode_field``."""
    sample = {"__key__": key}
    for field in members if fields is None else fields:
        if field not in members:
            raise SampleError(f"the sample has the fields {sorted(members)}.", key=key, field=field)
        try:
            sample[field] = decode_field(field, members[field], allow_unsafe)
        except (CodecError, UnsafeFieldError) as error:
            error.key = key
            raise
    return sample


def _limit_of(nbytes_in: int) -> int:
    """Return how many bytes a compressed field of so many may become."""
    return min(MAX_FIELD_NBYTES, compression.limit_of(nbytes_in))


def _check_tenbin(data: bytes) -> None:
    """Raise ValueError unless the chunks follow each other to the end.

    webdataset's own loop believes a negative size, and goes back with it for ever.
    """
    begin = 0
    while begin < len(data):
        if len(data) - begin < 16:
            raise ValueError("a tenbin chunk is cut")
        (nbytes,) = struct.unpack_from("<q", data, begin + 8)
        if not 0 <= nbytes <= len(data) - begin - 16:
            raise ValueError(f"a tenbin chunk of {nbytes} bytes does not fit into {len(data)}")
        begin += 16 + -(-nbytes // 64) * 64


def _check_npz(data: bytes) -> None:
    """Raise ValueError if the arrays of a .npz are larger than a field may be: a zip bomb."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        nbytes = sum(info.file_size for info in archive.infolist())
    if nbytes > _limit_of(len(data)):
        raise ValueError(f"{len(data)} bytes of .npz claim to hold {nbytes}, more than {_limit_of(len(data))}")


CHECKS = {"ten": _check_tenbin, "tb": _check_tenbin, "npz": _check_npz}


# -- writing --------------------------------------------------------------------------------------


def encode_sample(sample: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    """Return a sample's tar members, ``(name, payload)`` sorted by field.

    ``{"__key__": "a/0001", "jpg": data, "cls": 3}`` gives ``a/0001.cls`` and ``a/0001.jpg``. Bytes are stored
    as they are, texts as UTF-8, other values as webdataset's writer encodes their extension. Fields named
    ``__x__``, as WebDataset adds them to what it reads, are left out.

    Raises:
        SampleError: The key or a field's name can't be read back as it is, or a value can't be encoded.
    """
    if not isinstance(sample, Mapping):
        raise SampleError(f"a sample is a dict of fields, not {type(sample).__name__}.")
    key = sample.get("__key__")
    _check_key(key)
    members = {}
    for field, value in sample.items():
        if isinstance(field, str) and field.startswith("__") and field.endswith("__"):
            continue
        _check_field(key, field)
        name = f"{key}.{field.lower()}"
        if name in members:
            raise SampleError(
                "two fields differ in their case only; readers see fields in lower case.", key=key, field=field
            )
        if META_NAME.match(name):
            raise SampleError(
                f"member name {name!r} begins like __x__/, which readers take for metadata.", key=key, field=field
            )
        if len(name.encode("utf-8", "surrogateescape")) > tar.MAX_NAME_NBYTES:
            raise SampleError(
                f"key and field are longer than {tar.MAX_NAME_NBYTES} bytes together.", key=key[:100], field=field[:100]
            )
        members[name] = _encode_value(key, field.lower(), value)
    if not members:
        raise SampleError("a sample needs a field beside __key__.", key=key)
    return sorted(members.items())


def _check_key(key: Any) -> None:
    if not isinstance(key, str) or not key:
        raise SampleError(f'a sample of the files layout needs "__key__", a non-empty text, not {key!r}.')
    parts = key.split("/")
    rule = None
    if "." in parts[-1] or not parts[-1]:
        rule = "a key's last part must have no dot and not be empty: the field begins at the first dot"
    elif not parts[0] or ".." in parts:
        rule = 'a key is a relative path without ".."'
    elif "\0" in key or not _is_encodable(key):
        rule = "a key has neither NUL nor lone surrogates"
    if rule is not None:
        raise SampleError(f"{rule}; this one is {key!r:.200}.", key=key[:200])


def _check_field(key: str, field: Any) -> None:
    if not isinstance(field, str) or not field or field.startswith("_"):
        raise SampleError(f"a field's name is a non-empty text that begins with no underscore, not {field!r}.", key=key)
    if "/" in field or "\0" in field or not _is_encodable(field):
        raise SampleError(
            f"a field's name has no slash, no NUL and no lone surrogates; this one is {field!r:.200}.", key=key
        )


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape")  # names of foreign shards that are no UTF-8 go back as they were
    except UnicodeEncodeError:
        return False
    return True


def _encode_value(key: str, field: str, value: Any) -> bytes:
    if isinstance(value, (bytearray, memoryview)):
        value = bytes(value)
    extension = field.removesuffix(".gz").rpartition(".")[2]
    try:
        data = bytes(_webdataset()[1](value, field))
        # A label of None would be written as "None" and fail at each reading. Only short values can be
        # of that kind (numbers), and only they are worth decoding once to see.
        if (
            not isinstance(value, (bytes, str))
            and len(data) <= CHECKED_VALUE_NBYTES
            and extension not in UNSAFE_EXTENSIONS
        ):
            decode_field(field, data)
    except Exception as error:  # the encoders are other packages' and raise what they like, on any value
        reason = getattr(error, "message", error)
        raise SampleError(
            f"{type(value).__name__} cannot be encoded as .{field}: {reason}", key=key, field=field
        ) from error
    return data
