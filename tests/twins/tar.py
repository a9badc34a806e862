"""The slow twin of ``csrc/lib/tar.c``: a tar scan one can read."""

import re
from dataclasses import dataclass

MAX_NAME, MAX_PREFIX, MAX_NUMBER = 4096, 2**20, 2**62


class Bad(Exception):
    """What is wrong (as in ``ShardError.problem``) and where."""


@dataclass
class Member:
    begin: int
    data_begin: int
    data_nbytes: int
    name: bytes
    kind: str
    key: bytes | None = None
    field: bytes | None = None
    starts_sample: bool = False


def padded(nbytes):
    return -(-nbytes // 512) * 512


def octal(field):
    """The number in a text field, "" if empty, None if it is no number."""
    text = field.split(b"\0")[0].strip(b" ")
    return None if re.fullmatch(rb"[0-7]*", text) is None else int(text, 8) if text else ""


def size_of(header, at):
    if header[124] & 0x80:
        size = int.from_bytes(header[124:136], "big") & (2**95 - 1)
    else:
        size = octal(header[124:136])
        size = 0 if size == "" else size
    if size is None or size > MAX_NUMBER:
        raise Bad("size", at)
    return size


def check_sum(header, at):
    stated = octal(header[148:156])
    if stated in (None, ""):
        raise Bad("garbage", at)
    counted = header[:148] + b" " * 8 + header[156:]
    if stated not in (sum(counted), sum(byte - 256 * (byte >= 128) for byte in counted)):
        raise Bad("checksum", at)


def pax_records(data, at):
    """The path and size that a pax payload sets; the last one counts."""
    found, pos = {}, 0
    while pos < len(data) and data[pos] != 0:
        match = re.compile(rb"([0-9]{1,19}) ").match(data, pos)
        end = pos + int(match[1]) if match else 0
        if match is None or not match.end() + 3 <= end <= len(data) or data[end - 1 : end] != b"\n":
            raise Bad("pax", at + pos)
        key, equals, value = data[match.end() : end - 1].partition(b"=")
        if not equals or not key:
            raise Bad("pax", at + pos)
        if key == b"path":
            found["path"] = value.rstrip(b"/")
        if key == b"size":
            if re.fullmatch(rb"[0-9]+", value) is None or int(value) > MAX_NUMBER:
                raise Bad("size", at + pos)
            found["size"] = int(value)
        if key.startswith(b"GNU.sparse."):
            raise Bad("unsupported", at + pos)
        pos = end
    return found


def name_of(header, own, globals_):
    if "path" in own or "path" in globals_:
        return own.get("path", globals_.get("path"))
    name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
    return prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name


def split(kind, name):
    """The member's kind, and key and field if it has them: WebDataset's rule."""
    if kind not in b"07" and not (kind == b"\0" and not name.endswith(b"/")):
        return "other", None, None
    if re.match(rb"__[^/]*__(/|\Z)", name, re.DOTALL):
        return "meta", None, None
    match = re.fullmatch(rb"((?:.*/)?[^/.][^/.]*)\.([^/]*)", name, re.DOTALL)
    return ("field", *match.groups()) if match else ("no field", None, None)


def scan(data, base=0, at=None):
    """Yields members; ends with a string that says how the archive ends. Raises Bad."""
    globals_, last_key = {}, None
    end = base + len(data)
    at = base if at is None else at
    while True:
        begin, own, announced = at, {}, False
        while True:
            header = data[at - base : at - base + 512]
            if not header and not announced and at <= end:
                yield "no end blocks"
                return
            if len(header) < 512:
                raise Bad("truncated", at if at <= end else end)
            if not any(header):
                if announced:
                    raise Bad("pax", at)
                rest = data[at - base :].lstrip(b"\0")
                if rest:
                    raise Bad("trailing", end - len(rest))
                yield "end blocks"
                return
            check_sum(header, at)
            kind = header[156:157]
            if kind not in b"xXgLK":
                break
            size = size_of(header, at)
            after = at + 512 + padded(size)
            if after - begin > MAX_PREFIX:
                raise Bad("limit", at)
            if after > end:
                raise Bad("truncated", at)
            payload = data[at - base + 512 : at - base + 512 + size]
            if kind == b"L":
                found = {"path": payload.split(b"\0")[0]}
            else:
                found = {} if kind == b"K" else pax_records(payload, at + 512)
            if kind == b"g":
                if len(found.get("path", b"")) > MAX_NAME:
                    raise Bad("limit", at + 512)
                globals_.update(found)
            else:
                own, announced = {**found, **own}, True
            at = after
        size = size_of(header, at)
        if kind in b"SM":
            raise Bad("unsupported", at)
        name = name_of(header, own, globals_)
        if len(name) > MAX_NAME:
            raise Bad("limit", at)
        what, key, field = split(kind, name)
        folder = kind == b"\0" and what == "other"
        size = 0 if kind in b"123456" or folder else own.get("size", globals_.get("size", size))
        yield Member(begin, at + 512, size, name, what, key, field, what == "field" and key != last_key)
        last_key = key if what == "field" else last_key
        at += 512 + padded(size)
