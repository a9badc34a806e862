import os
import pickle
import re
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import HashingVectorizer

from shardstream.errors import ConfigError, TextError
from shardstream.text import FeatureHasher
from shardstream.text import hashing as module
from tests.twins import hashing as twin

DATA = Path(os.environ.get("SHARDSTREAM_DATA", Path(__file__).resolve().parents[1] / "../shared/data")) / "text"

# Where letter case, word edges and blanks are hard, and scripts of 1 to 4 bytes a character. All were
# assigned long before Unicode 10, so every interpreter agrees on them.
HARD = (
    "aZz09_ .,'-\n\t\x1c\x85\u00a0\u2028\u3000"
    "\u03a3\u03c3\u03c2\u0130\u0131\u00df\u1e9e\u212a\u212b\u023a\u01c5\u0345\u0301\u00ad\u00b7\u2019\u200d"
    "\u00e9\u0416\u05d0\u0627\u0967\u0e01\u1100\u2160\u24b6\u4e2d\uac00\uff21\u00b2\u00bd\U00010400\U0001d7d8\U0001f600"
)
texts_of_hard = st.lists(st.text(alphabet=HARD, max_size=40), max_size=5)
texts_of_any = st.lists(
    st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cn", "Cs"]), max_size=30), max_size=3
)
dims = st.sampled_from([1, 2, 3, 7, 64, 1000, 2**20, 2**31 - 1]) | st.integers(1, 2**31 - 1)
ranges = st.tuples(st.integers(1, 3), st.integers(0, 3)).map(lambda pair: (pair[0], sum(pair)))
options = st.fixed_dictionaries(
    {
        "ngrams": ranges,
        "lowercase": st.booleans(),
        "signed": st.booleans(),
        "analyzer": st.sampled_from(["word", "char", "char_wb"]),
        "binary": st.booleans(),
    }
)


def by_sklearn(texts, dim, *, ngrams=(1, 2), lowercase=True, signed=False, analyzer="word", binary=False):
    """Return HashingVectorizer's ``(indices, indptr, values)``."""
    vectorizer = HashingVectorizer(
        n_features=dim,
        ngram_range=ngrams,
        lowercase=lowercase,
        alternate_sign=signed,
        analyzer=analyzer,
        binary=binary,
        norm=None,
    )
    rows = vectorizer.transform(texts)
    return rows.indices, rows.indptr, rows.data


def assert_rows_equal(got, expected):
    for one, other, name in zip(got, expected, ("indices", "indptr", "values"), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)


@given(texts_of_hard, dims, options)
def test_equals_the_twin(texts, dim, options):
    """Rows, values and dtypes of any texts and options are the twin's."""
    got, expected = FeatureHasher(dim, **options).transform(texts), twin.hash_texts(texts, dim, **options)
    assert_rows_equal(got, expected)
    assert got[2].dtype == expected[2].dtype


@given(texts_of_hard.filter(len), dims, options)
def test_equals_scikit_learn(texts, dim, options):
    """Indices and values are HashingVectorizer's with norm=None."""
    assert_rows_equal(FeatureHasher(dim, **options).transform(texts), by_sklearn(texts, dim, **options))


@pytest.mark.skipif(
    unicodedata.unidata_version != module.UNICODE_VERSION,
    reason="scikit-learn uses the interpreter's other Unicode data",
)
@given(texts_of_any.filter(len), options)
def test_equals_scikit_learn_on_any_characters(texts, options):
    """So they are for texts of arbitrary assigned characters."""
    assert_rows_equal(FeatureHasher(2**20, **options).transform(texts), by_sklearn(texts, 2**20, **options))


def corpora():
    """Return the shared corpora as ``(name, list of texts)``; empty where the data is absent."""
    found = []
    for path in sorted(DATA.glob("reuters/*.sgm"))[:4]:
        found.append((path.stem, re.findall(r"<BODY>(.*?)</BODY>", path.read_text("latin-1"), re.DOTALL)))
    for path in sorted(DATA.glob("multilingual/*.txt")):
        found.append((path.stem, path.read_text("utf-8").splitlines()))
    for path in [DATA / "nltk_movie_reviews.zip", DATA / "multilingual/nltk_genesis.zip"]:
        if path.exists():
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.endswith(".txt")][:60]
                found.append((path.stem, [archive.read(name).decode("utf-8", "replace")[:20000] for name in names]))
    return found


@pytest.mark.skipif(not DATA.is_dir(), reason="no real text: neither $SHARDSTREAM_DATA nor ../shared/data is there")
@pytest.mark.parametrize(
    "settings_of",
    [
        {"dim": 2**20},
        {"dim": 2**18, "ngrams": (1, 1), "signed": True},
        {"dim": 100_003, "ngrams": (2, 3), "lowercase": False},
        {"dim": 2**20, "ngrams": (3, 4), "analyzer": "char_wb"},
    ],
    ids=str,
)
def test_equals_scikit_learn_on_real_text(settings_of):
    """News, reviews and the multilingual files give HashingVectorizer's rows."""
    for _, texts in corpora():
        part = texts[::4] if "analyzer" in settings_of else texts
        assert_rows_equal(FeatureHasher(**settings_of).transform(part), by_sklearn(part, **settings_of))


def test_the_least_hash_takes_the_index_of_its_magnitude():
    """A hash of -2**31, whose abs() is undefined in C, has index 2**31 mod dim, as in scikit-learn."""
    word = "1x1n20aa"
    assert twin.murmur3(word.encode()) == 2**31
    for dim in (1, 7, 1000, 2**20, 2**31 - 1):
        got = FeatureHasher(dim, signed=True).transform([word])
        assert got[0].tolist() == [2**31 % dim]
        assert_rows_equal(got, by_sklearn([word], dim, signed=True))


@pytest.mark.parametrize("analyzer", ["word", "char"])
@pytest.mark.parametrize("before", ["", "a", ".", "a'", "a'\u0301\u2019", ".'\u0301", "a\u02b0\u02b0", "a. "])
@pytest.mark.parametrize("after", ["", "1", "b", "'", "'\u0301b", "'\u0301.", "\u02b0\u02b0", "\u02b0\u02b01b", " b"])
def test_a_sigma_at_the_end_of_a_word_is_final(before, after, analyzer):
    """Case-ignorable characters, of which U+02B0 is a letter, are left aside on both sides, as in str.lower()."""
    text = f"{before}\u03a3{after}"
    expected = by_sklearn([text], 2**20, analyzer=analyzer)
    for same in (text, text.encode()):
        assert_rows_equal(FeatureHasher(2**20, analyzer=analyzer).transform([same]), expected)


def test_cancelled_signs_stay_as_zero():
    """An index whose signs sum to 0 is kept with value 0, as in scikit-learn; with binary its value is 1."""
    texts = ["alpha beta"]
    assert [twin.signed_index(word, 1)[1] for word in ("alpha", "beta")] == [-1, 1]
    indices, _, values = FeatureHasher(1, (1, 1), signed=True).transform(texts)
    assert (indices.tolist(), values.tolist()) == ([0], [0.0])
    assert FeatureHasher(1, (1, 1), signed=True, binary=True).transform(texts)[2].tolist() == [1]


@given(texts_of_hard, st.lists(st.booleans(), min_size=5, max_size=5))
def test_every_form_of_input_gives_the_same_rows(texts, as_bytes):
    """Strings, UTF-8 bytes, a mix of both, and one ragged pair of arrays are the same batch."""
    hasher = FeatureHasher(2**20)
    expected = hasher.transform(texts)
    mixed = [text.encode() if flag else text for text, flag in zip(texts, as_bytes)]
    pieces = [text.encode() for text in texts]
    padded = np.frombuffer(b"\xff" + b"".join(pieces) + b"\xff", np.uint8)
    ragged = padded, np.cumsum([1, *map(len, pieces)])
    for same in (mixed, tuple(texts), iter(texts), np.array(mixed, object), ragged):
        assert_rows_equal(hasher.transform(same), expected)


def test_sets_are_the_rows_without_values():
    """sets() gives the indices that transform() gives, whatever its values; no texts are no rows."""
    texts = ["one two two", "", "three", "ein Löwe, zwei Löwen"]
    for signed, binary in [(False, False), (True, False), (False, True)]:
        hasher = FeatureHasher(1 << 12, signed=signed, binary=binary)
        assert all(np.array_equal(*pair) for pair in zip(hasher.sets(texts), hasher.transform(texts)[:2], strict=True))
    assert [array.tolist() for array in hasher.sets([])] == [[], [0]]


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_chunks_and_threads_do_not_change_rows(num_threads, monkeypatch):
    """A batch that is cut into many chunks, on any number of threads, gives the rows of one call."""
    texts = [f"Row {i} has word{i % 7} and \u00e9t\u00e9 {i % 11} \U0001f600. " * (i % 5) for i in range(400)]
    expected = FeatureHasher(2**20, signed=True).transform(texts)
    monkeypatch.setattr(module, "MIN_PART", 100)
    monkeypatch.setattr(module, "MAX_PART", 1000)
    monkeypatch.setattr(module, "CHUNK", 300)
    got = FeatureHasher(2**20, signed=True).transform(texts, num_threads=num_threads)
    assert_rows_equal(got, expected)
    assert [array.dtype for array in got] == [np.uint32, np.int64, np.float32]


def test_errors_in_a_later_chunk_name_the_text_of_the_batch(monkeypatch):
    """The index in a TextError counts from the batch's start, not the chunk's."""
    monkeypatch.setattr(module, "MAX_PART", 200)
    monkeypatch.setattr(module, "CHUNK", 50)
    texts = [b"twenty bytes of text"] * 30 + [b"bad \xff"] + [b"more"] * 3
    with pytest.raises(TextError, match=r"texts\[30\] is not UTF-8 at byte 4\.") as caught:
        FeatureHasher(64).transform(texts)
    assert pickle.loads(pickle.dumps(caught.value)).index == caught.value.index == 30
    for wrong, analyzer in ((bytearray(b"no text"), "word"), ("a\ud800", "char")):  # known to be wrong before C sees them
        with pytest.raises(TextError, match=r"texts\[30\] ") as caught:
            FeatureHasher(64, analyzer=analyzer).transform(["twenty bytes of t\u00e9xt"] * 30 + [wrong, "more"])
        assert caught.value.index == 30


def test_lone_surrogates_part_words_and_are_no_characters():
    """As in scikit-learn: between words a surrogate is no word character; an n-gram with one is an error."""
    texts = ["fine", "one\ud800two \udfff\u03a3\ud800 A\u03a3\ud800b"]
    assert_rows_equal(FeatureHasher(2**20).transform(texts), by_sklearn(texts, 2**20))
    with pytest.raises(TextError, match=r"texts\[1\] has a lone surrogate at character 3\."):
        FeatureHasher(2**20, analyzer="char").transform(texts)


@pytest.mark.parametrize("texts", ["one text", b"one text", None, 5, np.array("0-d")], ids=str)
def test_one_text_is_not_a_batch(texts):
    """A single string, whose characters would be taken for texts, is refused; so is what is no sequence."""
    with pytest.raises(ConfigError, match="must be a sequence of texts"):
        FeatureHasher(8).transform(texts)


@pytest.mark.parametrize("texts", [["a", None], ["a", 3], ["a", float("nan")], ["a", bytearray(b"x")]], ids=str)
def test_what_is_no_text_is_located(texts):
    """Anything but str and bytes is an error that names the element."""
    with pytest.raises(TextError, match=r"texts\[1\] must be a str or bytes"):
        FeatureHasher(8).transform(texts)


@pytest.mark.parametrize(
    "pair",
    [
        (np.zeros(3, np.int8), np.array([0, 3])),
        (np.zeros((3, 1), np.uint8), np.array([0, 3])),
        (np.zeros(3, np.uint8), np.array([0.0, 3.0])),
        (np.zeros(3, np.uint8), np.array([], np.int64)),
    ],
    ids=["int8", "2-D", "float", "no offsets"],
)
def test_ragged_arrays_of_another_kind_are_refused(pair):
    """values must be 1-D uint8 and offsets integers, one more than there are texts."""
    with pytest.raises(ConfigError):
        FeatureHasher(8).transform(pair)


@pytest.mark.parametrize(
    "arguments",
    [
        {"dim": 0},
        {"dim": 2**31},
        {"dim": 8.0},
        {"dim": True},
        {"dim": 8, "ngrams": (0, 1)},
        {"dim": 8, "ngrams": (2, 1)},
        {"dim": 8, "ngrams": 2},
        {"dim": 8, "ngrams": (1, 2, 3)},
        {"dim": 8, "ngrams": ("1", "2")},
        {"dim": 8, "analyzer": "words"},
        {"dim": 8, "analyzer": ["word"]},
        {"dim": 8, "lowercase": None},
        {"dim": 8, "signed": "no"},
        {"dim": 8, "binary": 1},
    ],
    ids=str,
)
def test_illegal_settings_are_refused_at_once(arguments):
    """The constructor, not the first batch, raises."""
    with pytest.raises(ConfigError):
        FeatureHasher(**arguments)


@pytest.mark.parametrize("num_threads", [0, 257, 1.5, True])
def test_number_of_threads_is_checked(num_threads):
    """num_threads is an integer from 1 to 256."""
    with pytest.raises(ConfigError):
        FeatureHasher(8).transform(["a"], num_threads=num_threads)


def test_empty_batches_and_texts_have_empty_rows():
    """No text gives no row and an empty text an empty one; dtypes stay."""
    indices, indptr, values = FeatureHasher(8).transform([])
    assert (indices.dtype, indptr.tolist(), values.dtype) == (np.uint32, [0], np.int32)
    assert FeatureHasher(8).transform(["", " \n", "a b c", "."])[1].tolist() == [0, 0, 0, 0, 0]


def test_pickles_and_compares_by_content():
    """A hasher travels to worker processes."""
    hasher = FeatureHasher(2**18, [1, 3], analyzer="char")
    assert pickle.loads(pickle.dumps(hasher)) == hasher == FeatureHasher(2**18, (1, 3), analyzer="char")


HOSTILE = {
    "no word boundary": "a" * 2**20,
    "words of two letters": "ab " * (2**20 // 3),
    "words of one letter": "a " * 2**19,
    "blanks": " " * 2**20,
    "capital sigmas": "\u03a3" * 2**19,
    "sigmas among ignorable marks": "\u03a3" + "\u0301" * 2**18 + "\u03a3" + "'" * 2**18 + "\u03a3",
    "ideographs without a boundary": "\u4e2d\u6587" * (2**20 // 6),
    "letter and dot": "a." * 2**19,
    "growing under lower-casing": "\u023a\u0130" * 2**18,
    "one to four bytes a character": "a\u00e9\u4e2d\U0001f600" * 2**16,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_megabyte_of_one_thing_is_hashed_right(text):
    """No edge of a block of 16 or 64 bytes, nor a long run, changes what scikit-learn gives."""
    assert_rows_equal(FeatureHasher(2**20).transform([text]), by_sklearn([text], 2**20))


def test_words_made_to_collide_are_hashed_right():
    """Thousands of words whose indices share their leading bits, which the table refuses, give scikit-learn's row."""
    words = [word for i in range(200_000) if twin_index(word := f"w{i}") < 2**20 // 50]
    assert len(words) > 3000
    texts = ["some row before", " ".join(words), "some row after"]
    assert_rows_equal(FeatureHasher(2**20, (1, 1)).transform(texts), by_sklearn(texts, 2**20, ngrams=(1, 1)))


def twin_index(word: str) -> int:
    h = module.native.murmur3(word.encode())
    return min(h, 2**32 - h) % 2**20
