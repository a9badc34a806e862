"""Twin of ``csrc/lib/sparse*.c``: sparse blocks written and read one bit at a time (docs/FORMAT.md, section 4).

Rows are lists of lists. ``write_block`` writes any form of any rows; ``read_block`` reads one. Bit streams
are strings of "0" and "1" in stream order, so that nothing here depends on shifts and masks.
"""

import struct

CODERS = ("rice", "bytes", "raw16", "raw32", "bitmap")
VIEWS = ("rows", "remap", "columns")
VALUES_CODERS = ("plain", "planes", "palette", "counts")
DTYPES = (None, "float32", "float16", "int32")


def leb128(value):
    out = bytearray()
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes(out) + bytes([value])


def pack_bits(bits):
    """Return the bytes of a string of bits, the first in the lowest place; zeros fill the last byte."""
    return bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))


def low(value, width):
    """Return the ``width`` lowest bits, lowest first."""
    return "".join(str(value >> i & 1) for i in range(width))


def rice_parameter(universe, size):
    return max(0, (77 * (2 * universe - size) // (160 * (size + 1))).bit_length() - 1)


def write_rice(universe, sets):
    lows, unary = "", ""
    for members in sets:
        if 2 * len(members) > universe:
            members = [x for x in range(universe) if x not in set(members)]
        b = rice_parameter(universe, len(members))
        for previous, x in zip([-1, *members], members, strict=False):
            gap = x - previous - 1
            lows += low(gap, b)
            unary += "0" * (gap >> b) + "1"
    return pack_bits(lows) + pack_bits(unary)


def write_sets(coder, universe, sets):
    if coder == "rice":
        return write_rice(universe, sets)
    if coder == "bytes":
        return b"".join(leb128(x - p - 1) for s in sets for p, x in zip([-1, *s], s, strict=False))
    if coder in ("raw16", "raw32"):
        return b"".join(struct.pack("<H" if coder == "raw16" else "<I", x) for s in sets for x in s)
    return b"".join(pack_bits("".join("01"[x in set(s)] for x in range(universe))) for s in sets)


def write_integers(integers, for_zstd=False, may_be_sparse=True):
    """Return the shortest mode's bytes; of equally short ones the first in this order."""
    if not integers:
        return b""
    least = min(integers)
    extra = [v - least for v in integers]
    width = max(extra).bit_length()
    in_bytes = b"\3" + b"".join(map(leb128, integers))
    forms = [b"\0" + leb128(least) + bytes([width]) + pack_bits("".join(low(v, width) for v in extra))]
    if width == 0:
        return min(forms[0], in_bytes, key=len)
    if for_zstd:
        return in_bytes
    for b in range(min(width, 32)):
        if sum(v >> b for v in extra) <= 8 * len(forms[0]):  # else it can't win, and may not fit into memory
            unary = pack_bits("".join("0" * (v >> b) + "1" for v in extra))
            forms.append(b"\1" + leb128(least) + bytes([b]) + pack_bits("".join(low(v, b) for v in extra)) + unary)
        tops = [(v + 2**b).bit_length() - 1 for v in extra]
        unary = pack_bits("".join("0" * (top - b) + "1" for top in tops))
        forms.append(
            b"\2"
            + leb128(least)
            + bytes([b])
            + unary
            + pack_bits("".join(low(v + 2**b, t) for v, t in zip(extra, tops, strict=True)))
        )
    forms.append(in_bytes)
    where = [i for i, v in enumerate(extra) if v]
    if may_be_sparse and len(where) <= len(integers) // 2:
        more = write_integers([extra[i] - 1 for i in where], may_be_sparse=False)
        forms.append(b"\4" + leb128(least) + leb128(len(where)) + write_rice(len(integers), [where]) + more)
    return min(forms, key=len)


def write_index(rows, dim, coder, view):
    ids = sorted({x for row in rows for x in row})
    holders = {x: [r for r, row in enumerate(rows) if x in row] for x in ids}
    for_zstd, out = coder == "bytes", b""
    if view != "rows":
        out = leb128(len(ids)) + write_rice(dim, [ids]) + write_integers([len(holders[x]) for x in ids], for_zstd)
    if view == "columns":
        return out + write_sets(coder, len(rows), [holders[x] for x in ids])
    universe = dim
    if view == "remap":
        rank_of = {x: rank for rank, x in enumerate(sorted(ids, key=lambda x: (-len(holders[x]), x)))}
        rows, universe = [sorted(rank_of[x] for x in row) for row in rows], len(ids)
    if coder != "bitmap":
        out += write_integers([len(row) for row in rows], for_zstd)
    return out + write_sets(coder, universe, rows)


# Forms by speed of reading; those of 1.02 times the smallest size or less are as good.
BY_SPEED = [("raw32", "rows"), ("raw16", "rows"), ("bitmap", "rows"), ("rice", "rows"), ("bytes", "rows")]
BY_SPEED += [(coder, "columns") for coder in ("raw32", "raw16", "rice", "bytes", "bitmap")]
BY_SPEED += [(coder, "remap") for coder in ("raw32", "raw16", "rice", "bytes", "bitmap")]


def choose(sizes):
    """Return the form to write, given the size of each form that there is."""
    return next(form for form in BY_SPEED if form in sizes and sizes[form] <= 1.02 * min(sizes.values()))


def write_values(values, dtype, coder):
    """Return the values section of a flat list of bit patterns (unsigned)."""
    width = 2 if dtype == "float16" else 4
    plain = b"".join(v.to_bytes(width, "little") for v in values)
    if coder == "plain":
        return plain
    if coder == "planes":
        return b"".join(plain[byte::width] for byte in range(width))
    if coder == "counts":
        return write_integers(values)
    entries = sorted(set(values), key=lambda v: (-values.count(v), v))
    return (
        leb128(len(entries))
        + b"".join(v.to_bytes(width, "little") for v in entries)
        + write_integers([entries.index(v) for v in values])
    )


def write_block(rows, dim, coder, view, values=None, dtype=None, values_coder="plain"):
    """Return the whole block, uncompressed."""
    index = write_index(rows, dim, coder, view)
    head = b"SPRS" + bytes(
        [1, CODERS.index(coder), VIEWS.index(view), DTYPES.index(dtype), VALUES_CODERS.index(values_coder), 0]
    )
    head += leb128(len(rows)) + leb128(dim) + leb128(sum(map(len, rows))) + leb128(len(index))
    section = b"" if dtype is None else write_values(values, dtype, values_coder)
    return head + (b"" if dtype is None else leb128(len(section))) + index + section
