import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardstream._native import sparse as native
from shardstream.codecs import sparse
from shardstream.errors import CodecError, SampleError
from tests.twins import sparse as twin

FORMS = [(coder, view) for coder in native.CODERS for view in native.VIEWS]


def csr(rows):
    """Return the rows as uint32 indices and int64 indptr."""
    return np.array([x for row in rows for x in row], np.uint32), np.cumsum([0, *map(len, rows)])


def block(rows, dim, coder, view, values=None, values_coder="plain"):
    """Return the uncompressed block of this form, or None if there is none."""
    indices, indptr = csr(rows)
    plan = native.Plan(indices, indptr, dim)
    if plan.nbytes(coder, view) is None:
        return None
    index = plan.write(coder, view)
    fields = {
        "num_rows": len(rows),
        "dim": dim,
        "num_indices": len(indices),
        "index_nbytes": len(index),
        "coder": native.CODERS.index(coder),
        "view": native.VIEWS.index(view),
    }
    if values is None:
        return native.write_header(**fields) + index
    section = native.write_values(values, values_coder)
    return (
        native.write_header(
            **fields,
            dtype=native.DTYPES.index(values.dtype.name),
            values_nbytes=len(section),
            values_coder=native.VALUES_CODERS.index(values_coder),
        )
        + index
        + section
    )


@st.composite
def rows_of(draw):
    """Sets of every density, from empty to full, over small universes and the largest one."""
    dim = draw(st.sampled_from([1, 2, 7, 8, 9, 31, 64, 100, 1000, 65536, 65537, 2**20, 2**32]))
    density = draw(st.sampled_from([0.02, 0.3, 0.6, 0.97]))
    num_rows = draw(st.integers(0, 9))
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    if dim > 1000:
        pool = np.unique(rng.integers(0, dim, 30, np.uint64))
    else:
        pool = np.arange(dim)
    return dim, [sorted(int(x) for x in pool[rng.random(len(pool)) < density * rng.random()]) for _ in range(num_rows)]


@settings(max_examples=200, deadline=None)
@given(rows_of(), st.sampled_from(FORMS))
def test_index_section_equals_twin(case, form):
    """Every form of any rows is written as the twin writes it, in the size foretold, and read back."""
    dim, rows = case
    if form[0] == "bitmap" and dim > 1000:
        form = ("rice", form[1])
    got = block(rows, dim, *form)
    if got is None:
        assert form[0] == "raw16" and dim > 65536
        return
    assert got == twin.write_block(rows, dim, *form)
    indices, indptr, values = sparse.decode(got, dim, len(rows))
    assert values is None and indices.dtype == np.uint32 and indptr.dtype == np.int64
    assert [indices[a:b].tolist() for a, b in zip(indptr, indptr[1:], strict=False)] == rows


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(st.integers(0, 3), st.integers(0, 300), st.integers(0, 2**31 - 1)), max_size=40),
    st.sampled_from(native.VALUES_CODERS),
    st.sampled_from(native.DTYPES[1:]),
    st.booleans(),
)
def test_values_section_equals_twin(numbers, coder, dtype, negate):
    """Values of each dtype in each coder are written as the twin writes them, and read back bit for bit."""
    array = np.array(numbers, np.int64) * (-1 if negate else 1)
    with np.errstate(over="ignore"):
        values = array.astype(dtype)
    patterns = values.view(np.uint16 if dtype == "float16" else np.uint32)
    if native.values_nbytes(values, coder) is None:
        assert coder == "counts" and (dtype != "int32" or (array < 0).any())
        return
    rows = [list(range(len(values)))]
    got = block(rows, 64, "rice", "rows", values, coder)
    assert got == twin.write_block(rows, 64, "rice", "rows", patterns.tolist(), dtype, coder)
    back = sparse.decode(got, 64, 1, dtype)[2]
    assert back.dtype == dtype and back.tobytes() == values.tobytes()


@settings(max_examples=100, deadline=None)
@given(rows_of(), st.sampled_from(native.DTYPES))
def test_encode_takes_the_smallest_form(case, dtype):
    """encode() is never more than 2% (and a byte) larger than any uncompressed form, and decodes to its input."""
    dim, rows = case
    indices, indptr = csr(rows)
    values = None if dtype is None else (indices % 5).astype(dtype)
    got = sparse.encode(indices, indptr, dim, values)
    back = sparse.decode(got, dim, len(rows), dtype)
    assert np.array_equal(back[0], indices) and np.array_equal(back[1], indptr)
    assert (back[2] is None) if dtype is None else back[2].tobytes() == values.tobytes()
    forms = [form for form in FORMS if form[0] != "bitmap" or dim <= 1000]
    sizes = [len(b) for form in forms if (b := block(rows, dim, *form, values)) is not None]
    assert len(got) <= 1.02 * min(sizes) + 1


@settings(max_examples=200, deadline=None)
@given(rows_of())
def test_choice_is_as_if_every_form_was_measured(case):
    """What bounds rule out would not have been chosen, and no form is below its bound."""
    dim, rows = case
    sizes = {}
    for form in FORMS:
        plan = native.Plan(*csr(rows), dim)
        least, size = plan.least_nbytes(*form), plan.nbytes(*form)
        assert (least is None) == (size is None)
        if size is not None:
            assert least <= size
            sizes[form] = size
    coder, view, smallest = native.Plan(*csr(rows), dim).choose()
    assert (coder, view) == twin.choose(sizes) and smallest == min(sizes.values())


@pytest.mark.parametrize("num_sets", [300, 20_000])
@pytest.mark.parametrize("skew", [0.0, 0.5, 1.0])
def test_choice_among_forms_of_large_blocks(num_sets, skew):
    """The same with the tables of blocks that have thousands of ids, and some in most rows."""
    rng = np.random.default_rng(num_sets)
    weight = 1 / np.arange(1, num_sets + 1) ** skew
    rows = [np.unique(rng.choice(num_sets, 60, p=weight / weight.sum())).tolist() for _ in range(400)]
    sizes = {form: native.Plan(*csr(rows), num_sets).nbytes(*form) for form in FORMS}
    assert native.Plan(*csr(rows), num_sets).choose()[:2] == twin.choose(sizes)


def test_repetition_is_found_in_blocks_too_large_to_try_whole():
    """Of 100 sets that come 25 times each, in any order, zstd leaves less than a tenth of what Rice would write."""
    rng = np.random.default_rng(0)
    sets = np.sort(rng.choice(2**20, (100, 100)), axis=1) + np.arange(100)
    rows = sets[rng.integers(0, 100, 2500)]
    indptr = np.arange(2501) * 100
    assert len(sparse.encode(rows.ravel(), indptr, 2**21)) < native.Plan(rows.ravel(), indptr, 2**21).nbytes("rice", "rows") / 10


def test_one_row_larger_than_a_sample_is_tried_whole():
    """A block whose first row holds most of it has no eighth to look at; zstd is still found to be best."""
    run = np.concatenate([np.arange(0, 150_000) * 2, np.arange(10)])
    indptr = np.array([0, 150_000, 150_010])
    got = sparse.encode(run, indptr, 2**30)
    assert len(got) < 1000 and np.array_equal(sparse.decode(got, 2**30, 2)[0], run)


@settings(max_examples=60, deadline=None)
@given(rows_of())
def test_unsorted_decode_gives_the_same_sets(case):
    """sort=False changes the order inside a remapped row without values, and nothing else."""
    dim, rows = case
    indices, indptr, _ = sparse.decode(block(rows, dim, "rice", "remap"), dim, len(rows), sort=False)
    assert [sorted(indices[a:b].tolist()) for a, b in zip(indptr, indptr[1:], strict=False)] == rows
    values = np.arange(indptr[-1], dtype=np.int32)  # which stand in the order of sorted rows
    indices, indptr, values_back = sparse.decode(block(rows, dim, "rice", "remap", values), dim, len(rows), "int32", sort=False)
    assert [indices[a:b].tolist() for a, b in zip(indptr, indptr[1:], strict=False)] == rows and np.array_equal(values_back, values)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 13, 70, 300])
def test_rice_parameters_of_every_width(size):
    """Sets in universes that double up to the largest, up to the last element; of many sizes, so that they begin at any bit of a byte."""
    rng, dim = np.random.default_rng(size), 4 * size
    while dim <= 2**32:
        sets = [np.unique(rng.integers(0, dim - 1, rng.integers(2 * size), np.uint64)) for _ in range(100)]
        rows = [[*few.tolist(), dim - 1] for few in sets]
        indices, indptr, _ = sparse.decode(block(rows, dim, "rice", "rows"), dim, len(rows))
        assert [indices[a:b].tolist() for a, b in zip(indptr, indptr[1:], strict=False)] == rows
        dim = 2**32 if dim < 2**32 < 2 * dim else 2 * dim


def test_large_block_of_every_form():
    """A block of 3,000 rows of up to 400 indices survives each form, with rows denser than one half."""
    rng = np.random.default_rng(0)
    weight = 1 / np.arange(1, 701)
    rows = [np.flatnonzero(rng.random(700) < rng.random() * 3 * weight**0.5).tolist() for _ in range(3000)]
    indices, indptr = csr(rows)
    for coder, view in FORMS:
        back = sparse.decode(block(rows, 700, coder, view), 700, len(rows))
        assert np.array_equal(back[0], indices) and np.array_equal(back[1], indptr), (coder, view)


def test_sort_rows_sorts_each_row_with_its_values():
    """Rows come out ascending, values follow their index."""
    indices, values = sparse.sort_rows(
        np.array([5, 1, 3, 2, 0]), np.array([0, 3, 3, 5]), 6, np.array([50, 10, 30, 20, 0], np.float32)
    )
    assert indices.tolist() == [1, 3, 5, 0, 2] and values.tolist() == [10, 30, 50, 0, 20] and indices.dtype == np.uint32


def test_sort_rows_of_uint32_copies():
    """Rows that are sorted already come out as a copy of their own, others sorted, bad ones as errors."""
    indices, indptr = np.array([1, 3, 0, 5], np.uint32), np.array([0, 2, 2, 4])
    out, values = sparse.sort_rows(indices, indptr, 6)
    assert out.tolist() == [1, 3, 0, 5] and values is None and not np.shares_memory(out, indices)
    assert sparse.sort_rows(indices[::-1], indptr, 6)[0].tolist() == [0, 5, 1, 3]
    for bad in ([1, 1, 0, 5], [1, 3, 0, 6]):
        with pytest.raises(SampleError):
            sparse.sort_rows(np.array(bad, np.uint32), indptr, 6)


@pytest.mark.parametrize(
    "rows, rule",
    [([[1, 2], [3, 3]], "repeated"), ([[0], [6]], "outside"), ([[0], [-1]], "outside"), ([[0], [2**32]], "outside")],
)
def test_sort_rows_names_the_bad_row(rows, rule):
    """A repeated or outside index is an error that names its row."""
    with pytest.raises(SampleError, match=rule) as error:
        sparse.sort_rows(np.array([x for row in rows for x in row]), np.cumsum([0, *map(len, rows)]), 6)
    assert error.value.key == 1


@pytest.mark.parametrize("indptr", [[0, 2, 1, 3], [1, 3], [0, 2], [0, 4], [-1, 3]])
def test_broken_indptr_is_refused(indptr):
    """Bounds that do not rise from 0 to the number of indices are an error."""
    with pytest.raises(SampleError):
        sparse.sort_rows(np.arange(3), np.array(indptr), 6)
    with pytest.raises(CodecError):
        sparse.encode(np.arange(3), np.array(indptr), 6)


def test_encode_refuses_unsorted_rows():
    """A row that is not strictly ascending, or reaches dim, is an error that names it."""
    for indices in ([0, 2, 1], [0, 1, 1], [0, 1, 6]):
        with pytest.raises(SampleError) as error:
            sparse.encode(np.array(indices), np.array([0, 1, 3]), 6)
        assert error.value.key == 1


def test_decode_refuses_what_was_not_asked_for():
    """Another dim, row count or dtype than the caller's is an error."""
    data = sparse.encode(np.array([1, 2]), np.array([0, 2]), 6)
    for wrong in [(7, 1, None), (6, 2, None), (6, 1, "float32")]:
        with pytest.raises(CodecError):
            sparse.decode(data, *wrong)
