"""The document, the golden bytes and the code say the same about sparse blocks (docs/FORMAT.md, section 4)."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings

from shardstream._native import sparse as native
from shardstream.codecs import sparse
from shardstream.errors import CodecError
from tests.test_native_sparse import FORMS, block, csr, rows_of
from tests.twins import sparse as twin

ROOT = Path(__file__).resolve().parents[1]
SECTION = re.search(r"^## 4 .*?(?=^## 5 )", (ROOT / "docs/FORMAT.md").read_text(), re.DOTALL | re.MULTILINE)[0]
GOLDEN = json.loads((ROOT / "tests/golden/sparse/blocks.json").read_text())


@pytest.fixture(scope="module")
def read_block():
    """The reader that stands in the document."""
    namespace = {}
    exec(compile(re.search(r"```python\n(.*?)```", SECTION, re.DOTALL)[1], "FORMAT.md", "exec"), namespace)
    return lambda data: namespace["read_block"](data, zstandard.ZstdDecompressor().decompress)


def test_worked_bytes_are_what_the_codec_writes():
    """The bytes worked out in the document are those of encode()'s parts for the rows it names."""
    lines = re.search(r"### 4.6.*?```\n(.*?)```", SECTION, re.DOTALL)[1].splitlines()
    worked = bytes.fromhex("".join(line.split("  ")[0] for line in lines))
    rows, counts = [[1, 5, 6], [], [0, 6]], np.array([1, 2, 1, 1, 1], np.int32)
    assert worked == block(rows, 8, "rice", "rows", counts, "counts")


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_block_is_read(name, read_block):
    """Blocks written once are read by the codec and by the document's reader alike, forever."""
    case = GOLDEN[name]
    data, dtype = bytes.fromhex(case["block"]), case.get("dtype")
    indices, indptr, values = sparse.decode(data, case["dim"], len(case["rows"]), dtype)
    assert [indices[a:b].tolist() for a, b in zip(indptr, indptr[1:], strict=False)] == case["rows"]
    assert (values is None) if dtype is None else values.tolist() == case["values"]
    assert read_block(data) == (case["rows"], case.get("values"))


@pytest.mark.parametrize("name", [name for name in GOLDEN if name != "zstd"])
def test_golden_block_is_written(name):
    """The same rows in the same form give the same bytes, from C and from the twin."""
    case = GOLDEN[name]
    data = bytes.fromhex(case["block"])
    header = native.parse(data)
    coder, view, values_coder = (
        native.CODERS[header.coder],
        native.VIEWS[header.view],
        native.VALUES_CODERS[header.values_coder],
    )
    values = None if header.dtype == 0 else np.array(case["values"], case["dtype"])
    assert block(case["rows"], case["dim"], coder, view, values, values_coder) == data
    if case["dim"] < 1000:
        patterns = None if values is None else values.view(f"u{values.itemsize}").tolist()
        assert (
            twin.write_block(case["rows"], case["dim"], coder, view, patterns, case.get("dtype"), values_coder) == data
        )


def test_golden_blocks_cover_the_format():
    """Every form, values coder and mode of integer lists is among the golden blocks."""
    headers = [native.parse(bytes.fromhex(case["block"])) for case in GOLDEN.values()]
    assert {(native.CODERS[h.coder], native.VIEWS[h.view]) for h in headers} == set(FORMS)
    assert {native.VALUES_CODERS[h.values_coder] for h in headers if h.dtype} == set(native.VALUES_CODERS)
    counts = [
        bytes.fromhex(c["block"])[native.parse(bytes.fromhex(c["block"])).values_offset]
        for n, c in GOLDEN.items()
        if n.startswith("counts")
    ]
    lengths = bytes.fromhex(GOLDEN["bytes rows"]["block"])[
        native.parse(bytes.fromhex(GOLDEN["bytes rows"]["block"])).index_offset
    ]
    assert {*counts, lengths} == {0, 1, 2, 3, 4}


@settings(max_examples=40, deadline=None)
@given(rows_of())
def test_document_reader_reads_what_encode_writes(read_block, case):
    """The document's reader agrees with decode() on whatever form encode() chose."""
    dim, rows = case
    if dim > 2**20 and any(2 * len(row) > dim for row in rows):
        return
    indices, indptr = csr(rows)
    values = (indices % 3 + 1).astype(np.int32)
    assert read_block(sparse.encode(indices, indptr, dim, values)) == (rows, values.tolist())


def decodes_or_refuses(data, dim, num_rows, dtype):
    """Decode; the result must be legal rows, or the error a CodecError with an offset in the data."""
    try:
        indices, indptr, values = sparse.decode(data, dim, num_rows, dtype)
    except CodecError as error:
        assert error.offset is not None and 0 <= error.offset <= len(data)
        return False
    assert (
        len(indptr) == num_rows + 1 and indptr[0] == 0 and indptr[-1] == len(indices) and (np.diff(indptr) >= 0).all()
    )
    assert (indices < dim).all()
    ascending = np.diff(indices.astype(np.int64)) > 0
    ascending[indptr[1:-1][(indptr[1:-1] > 0) & (indptr[1:-1] < len(indices))] - 1] = True
    assert ascending.all() and (values is None or len(values) == len(indices))
    return True


@pytest.mark.parametrize("name", GOLDEN)
def test_every_truncation_is_an_error(name):
    """A block cut at any byte is refused with the place."""
    case = GOLDEN[name]
    data = bytes.fromhex(case["block"])
    for cut in range(len(data)):
        assert not decodes_or_refuses(data[:cut], case["dim"], len(case["rows"]), case.get("dtype"))
    assert not decodes_or_refuses(data + b"\0", case["dim"], len(case["rows"]), case.get("dtype"))


@pytest.mark.parametrize("name", [name for name in GOLDEN if name != "zstd"])
def test_a_byte_left_over_in_a_section_is_an_error(name):
    """A section that its header makes a byte longer than what it holds is refused, with the place of that byte."""
    case = GOLDEN[name]
    data = bytes.fromhex(case["block"])
    h = native.parse(data)
    index, values = data[h.index_offset : h.values_offset], data[h.values_offset :]
    for more_index, more_values in [(b"\0", b""), (b"", b"\0")][: 1 + (h.dtype != 0)]:
        longer = native.write_header(
            num_rows=h.num_rows, dim=h.dim, num_indices=h.num_indices, coder=h.coder, view=h.view, dtype=h.dtype, values_coder=h.values_coder,
            index_nbytes=len(index + more_index), values_nbytes=len(values + more_values))  # fmt: skip
        with pytest.raises(CodecError) as error:
            sparse.decode(longer + index + more_index + values + more_values, h.dim, h.num_rows, case.get("dtype"))
        assert error.value.offset == len(longer) + len(index) + (len(values) if more_values else 0)


def patterns(parts):
    """Return arrays, of which some may be None, as what can be compared to the last bit."""
    return [None if part is None else part.tobytes() for part in parts]


@pytest.mark.parametrize("name", [name for name in GOLDEN if name != "zstd"])
def test_no_bit_is_without_meaning(name):
    """A flipped bit is an error or gives other rows or values; so every padding bit is checked."""
    case = GOLDEN[name]
    data, rest = bytes.fromhex(case["block"]), (case["dim"], len(case["rows"]), case.get("dtype"))
    wanted, header = patterns(sparse.decode(data, *rest)), native.parse(data)
    for at, bit in np.ndindex(len(data), 8):
        flipped = bytearray(data)
        flipped[at] ^= 1 << bit
        # A list of equal integers may be packed, or be sparse without exceptions: modes 0 and 4.
        is_mode = at in (header.index_offset, header.values_offset) and {data[at], flipped[at]} == {0, 4}
        try:
            assert patterns(sparse.decode(bytes(flipped), *rest)) != wanted or is_mode
        except CodecError:
            pass


@pytest.mark.parametrize("coder, section", [
    ("palette", twin.leb128(2) + bytes(8) + twin.write_integers([1, 2])), ("palette", twin.leb128(0) + twin.write_integers([0, 0])),
    ("palette", twin.leb128(65537) + bytes(4 * 65537) + twin.write_integers([0, 1])), ("counts", twin.write_integers([1, 2**31])),
])  # fmt: skip
def test_values_that_a_coder_does_not_have_are_refused(coder, section):
    """A code beyond the palette, a palette beyond its limit, and a count beyond int32."""
    whole = block([[0, 3]], 8, "raw32", "rows", np.array([1, 2], np.int32))
    h = native.parse(whole)
    data = native.write_header(
        num_rows=1, dim=8, num_indices=2, coder=h.coder, view=h.view, dtype=h.dtype, values_coder=native.VALUES_CODERS.index(coder),
        index_nbytes=h.values_offset - h.index_offset, values_nbytes=len(section)) + whole[h.index_offset : h.values_offset]  # fmt: skip
    with pytest.raises(CodecError) as error:
        sparse.decode(data + section, 8, 1, "int32")
    assert len(data) <= error.value.offset <= len(data + section)


@pytest.mark.parametrize(("num_zeros", "is_packed"), [(180, False), (400, True)])
def test_zstd_must_save_more_than_a_tie(num_zeros, is_packed):
    """Values of which zstd would save 1.7% are stored plain, since they are read faster; not if it saves 4%."""
    values = np.random.default_rng(0).integers(2**20, 2**30, 10_000).astype(np.int32)
    values[-num_zeros:] = 0
    header = native.parse(sparse.encode(np.arange(10_000), np.array([0, 10_000]), 10_000, values.view(np.float32)))
    assert native.VALUES_CODERS[header.values_coder] == "plain" and bool(header.values_zstd) is is_packed


@pytest.mark.parametrize("name", GOLDEN)
def test_every_flipped_byte_is_an_error_or_legal_rows(name):
    """A block with any byte changed decodes to legal rows or is refused; it never crashes."""
    case = GOLDEN[name]
    data = bytearray.fromhex(case["block"])
    for at in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            data[at] ^= flip
            decodes_or_refuses(bytes(data), case["dim"], len(case["rows"]), case.get("dtype"))
            data[at] ^= flip


def hostile(num_rows=1, dim=2**32, num_indices=0, index=b"", **fields):
    return (
        native.write_header(num_rows=num_rows, dim=dim, num_indices=num_indices, index_nbytes=len(index), **fields)
        + index
    )


@pytest.mark.parametrize(
    "data, num_rows",
    [
        (hostile(num_indices=2**32 - 1), 1),
        (hostile(num_indices=2**24 + 1), 1),
        (hostile(num_rows=2**24 + 1), 2**24 + 1),
        (hostile(index_zstd=1, index_raw_nbytes=2**26 + 1), 1),
        (hostile(dim=2**32 + 1), 1),
        (hostile(dim=0), 1),
        (hostile(num_rows=2**63), 2**63),
    ],
)
def test_claims_beyond_the_size_are_refused(data, num_rows):
    """Counts that a block of this size may not have are refused before anything is allocated."""
    with pytest.raises(CodecError, match="more than its size allows"):
        sparse.decode(data, 2**32, num_rows)


@pytest.mark.parametrize("dim, num_per_row, form", [
    (1 << 20, 25, ("bytes", "remap")), (200, 25, ("bytes", "rows")), (128, 32, ("bitmap", "rows")),
])  # fmt: skip
def test_rows_that_repeat_are_stored_by_zstd_in_the_form_that_it_packs_best(dim, num_per_row, form, monkeypatch):
    """Each of the forms that are handed to zstd is the choice for some sets; without it their blocks would be larger."""
    random = np.random.default_rng(1)
    few = [np.sort(random.choice(dim, num_per_row, replace=False)) for _ in range(10)]
    rows = [few[k] for k in random.integers(0, len(few), 1500)]
    arrays = np.concatenate(rows).astype(np.uint32), np.arange(len(rows) + 1) * num_per_row, dim
    data = sparse.encode(*arrays)
    header = native.parse(data)
    assert (native.CODERS[header.coder], native.VIEWS[header.view]) == form and header.index_zstd
    monkeypatch.setattr(sparse, "ZSTD_FORMS", tuple(other for other in sparse.ZSTD_FORMS if other != form))
    assert len(sparse.encode(*arrays)) > len(data)


def test_a_zstd_bomb_is_refused():
    """A frame that unpacks to more than its header says, or does not say how much, is refused unopened."""
    for stated in (True, False):
        frame = zstandard.ZstdCompressor(write_content_size=stated).compress(bytes(2**25))
        with pytest.raises(CodecError, match="zstd"):
            sparse.decode(hostile(index=frame, index_zstd=1, index_raw_nbytes=1000), 2**32, 1)


@pytest.mark.parametrize("view, sizes", [("rows", [3]), ("columns", [3]), ("remap", [3]), ("columns", [2, 0]), ("remap", [2, 0])])
@pytest.mark.parametrize("coder", ["rice", "bytes", "raw16", "raw32"])
def test_sizes_that_no_set_has_are_refused(coder, view, sizes):
    """A set larger than its universe of two, or an id in a table that occurs nowhere, is refused where its size stands."""
    table = b"" if view == "rows" else twin.leb128(len(sizes)) + twin.write_rice(2, [list(range(len(sizes)))])
    num_rows = 1 if view == "rows" else 2
    codes = {"coder": native.CODERS.index(coder), "view": native.VIEWS.index(view)}
    data = hostile(num_rows, 2, sum(sizes), table + twin.write_integers(sizes, coder == "bytes") + bytes(64), **codes)
    with pytest.raises(CodecError) as error:
        sparse.decode(data, 2, num_rows)
    assert error.value.offset == len(data) - 64
