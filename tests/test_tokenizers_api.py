"""What a tokenizer promises besides its ids: inputs, special tokens, threads, processes, errors."""

import multiprocessing
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shardstream.tokenizers as sst
from shardstream.errors import TokenizerError
from shardstream.tokenizers import Vocabulary, patterns
from tests import texts
from tests import vocabularies as v


def make(pattern: str = patterns.O200K, **rules) -> sst.Tokenizer:
    ranks, _ = v.parts_of(v.trained(patterns.O200K))
    rules = {"merges": None, "whole_piece": True, "pattern": pattern} | rules
    return sst.Tokenizer(Vocabulary.from_tokens(ranks, {"<|end|>": len(ranks), "<|end|>x": len(ranks) + 5}, **rules))


@pytest.fixture(scope="module")
def tok() -> sst.Tokenizer:
    return make()


def batch_lists(tok, batch, **options) -> list[list[int]]:
    ids, offsets = tok.encode_batch(batch, **options)
    assert ids.dtype == np.uint32 and offsets.dtype == np.int64 and ids.flags.owndata and len(offsets) == len(batch) + 1
    return [ids[begin:end].tolist() for begin, end in zip(offsets, offsets[1:])]


@given(st.lists(st.text(max_size=30), max_size=8))
def test_a_batch_is_its_texts_one_by_one(tok, batch):
    """encode_batch() gives what encode() gives for each text; nothing leaks from one text into the next."""
    assert batch_lists(tok, batch) == [tok.encode(text, disallowed_special=()).tolist() for text in batch]


@given(st.binary(max_size=80))
def test_any_bytes_come_back(tok, data):
    """decode_bytes(encode(b)) is b, valid UTF-8 or not, also with a pattern that C does not know."""
    assert tok.decode_bytes(tok.encode(data)) == data
    assert OTHER.decode_bytes(OTHER.encode(data)) == data


OTHER = make(pattern=r"\p{L}+|\d")


def test_bytes_str_and_arrays_are_encoded_alike(tok):
    """Text as str, as UTF-8 bytes and as (values, offsets) has the same ids."""
    batch = texts.adversarial(seed=9, num=200)
    data = [text.encode() for text in batch]
    arrays = np.frombuffer(b"??" + b"".join(data), np.uint8), np.cumsum([2, *map(len, data)])
    expected = batch_lists(tok, batch)
    assert batch_lists(tok, data) == batch_lists(tok, list(map(memoryview, data))) == expected
    for num_threads in (1, 2):
        ids, offsets = tok.encode_batch(arrays, num_threads=num_threads)
        assert [ids[begin:end].tolist() for begin, end in zip(offsets, offsets[1:])] == expected


def test_an_empty_batch_is_empty(tok):
    """No texts give no ids and the offsets of no texts."""
    for empty in ([], (np.empty(0, np.uint8), np.zeros(1, np.int64))):
        ids, offsets = tok.encode_batch(empty)
        assert ids.dtype == np.uint32 and len(ids) == 0 and offsets.tolist() == [0]
    assert batch_lists(tok, ["", ""]) == [[], []]


@pytest.mark.parametrize("tokenizer", [make(), OTHER, make(nfc=True)], ids=["native", "regex", "nfc"])
def test_threads_do_not_change_ids(tokenizer):
    """A batch of many chunks has the same ids and offsets whatever the number of threads."""
    batch = texts.library_text(600_000) * 2 + texts.adversarial(seed=10, num=200)
    batch[3], batch[-1] = "<|end|>" + batch[3], batch[-1] + "<|end|>x"
    for special in ((), "all"):
        options = {"allowed_special": special, "disallowed_special": ()}
        ids, offsets = tokenizer.encode_batch(batch, **options)
        for num_threads in (2, 3, 17):
            other_ids, other_offsets = tokenizer.encode_batch(batch, num_threads=num_threads, **options)
            np.testing.assert_array_equal(ids, other_ids)
            np.testing.assert_array_equal(offsets, other_offsets)


def test_one_tokenizer_serves_many_threads_at_once(tok):
    """Calls from several threads do not disturb one another."""
    batch = texts.adversarial(seed=11, num=2000)
    expected, wrong = batch_lists(tok, batch), []

    def work():
        for _ in range(3):
            if batch_lists(tok, batch) != expected:
                wrong.append(threading.get_ident())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _encode_in_child(tokenizer, text, queue):
    queue.put(tokenizer.encode(text).tolist())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_encode_alike(tok, method):
    """A tokenizer works in a forked child and, pickled, in a fresh interpreter."""
    text = "".join(texts.adversarial(seed=12, num=20))
    expected = tok.encode(text).tolist()
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_encode_in_child, args=(tok, text, queue))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join()


def test_pickles_by_content(tok):
    """A copy is equal in ids, special tokens and size, and shares nothing."""
    copy = pickle.loads(pickle.dumps(tok))
    batch = texts.adversarial(seed=13, num=100)
    assert batch_lists(copy, batch) == batch_lists(tok, batch)
    assert copy.special_tokens == tok.special_tokens and copy.vocab_size == tok.vocab_size
    other = make(nfc=True, merges=None, whole_piece=False)
    assert pickle.loads(pickle.dumps(other)).vocabulary.digest() == other.vocabulary.digest() != tok.vocabulary.digest()


def test_text_between_matches_is_a_piece():
    """A pattern need not match all of a text: what is between is kept whole, as with Hugging Face's "Isolated"."""
    assert patterns.splitter(r"\p{L}+")("--ab, c1 2") == ["--", "ab", ", ", "c", "1 2"]
    assert patterns.splitter(r"\d")("") == []


def test_ids_and_tokens_name_each_other(tok):
    """token_to_id and id_to_token are inverse on every id, gaps and special tokens included."""
    end = tok.special_tokens["<|end|>"]
    assert tok.token_to_id("<|end|>") == tok.token_to_id("<|end|>") == end
    assert tok.id_to_token(end) == b"<|end|>" and tok.id_to_token(end + 1) is None
    assert tok.id_to_token(-1) is None and tok.id_to_token(tok.vocab_size) is None
    assert tok.token_to_id("\U0001f642 no token") is None and tok.token_to_id(b"") is None
    assert tok.vocab_size == end + 6
    for number in range(end):
        assert tok.token_to_id(tok.id_to_token(number)) == number


def test_special_tokens_are_an_error_text_or_ids(tok):
    """encode() refuses them by default, as tiktoken does; a batch takes them for text; allowed ones are ids."""
    end, longer = tok.special_tokens["<|end|>"], tok.special_tokens["<|end|>x"]
    with pytest.raises(TokenizerError, match=r"texts\[0\] has the special token '<\|end\|>'"):
        tok.encode("a<|end|>")
    assert end not in batch_lists(tok, ["a<|end|>"])[0]
    assert tok.encode("<|end|>a<|end|>", allowed_special="all").tolist() == [end, *tok.encode("a"), end]
    assert tok.encode("<|end|>x", allowed_special="all").tolist() == [longer]
    with pytest.raises(TokenizerError) as caught:
        tok.encode_batch(["", "b", "a<|end|>x"], allowed_special={"<|end|>"}, disallowed_special="all")
    assert caught.value.index == 2
    with pytest.raises(TokenizerError, match="not a special token"):
        tok.encode("a", allowed_special={"<|none|>"})
    for name in ("allowed_special", "disallowed_special"):
        for wrong in ("<|end|>", None, {5}):
            with pytest.raises(TokenizerError, match=f"{name} is a collection"):
                tok.encode("a<|end|>", **{name: wrong})


def test_decoding(tok):
    """Special tokens decode to their text, parts of characters to U+FFFD or an error, other ids not at all."""
    ids = tok.encode("na\u00efve \U0001f642<|end|>", allowed_special="all")
    assert tok.decode(ids) == "na\u00efve \U0001f642<|end|>"
    assert tok.decode([]) == ""
    part = [tok.token_to_id(b"\xf0")]
    assert tok.decode(part) == "\ufffd"
    with pytest.raises(UnicodeDecodeError):
        tok.decode(part, errors="strict")
    for wrong in ([tok.vocab_size], [tok.special_tokens["<|end|>"] + 1], [-1], [2**40], ["a"], [1.5], [[97, 98]], 97,
                  None):  # fmt: skip
        with pytest.raises(TokenizerError):
            tok.decode(wrong)


@pytest.mark.parametrize("texts_", ["one text", None, 5, [1], np.array("0-d"), {"ab": None}.values(), (np.zeros(3), np.zeros(2, np.int64)), (np.zeros(3, np.uint8), np.zeros(0, np.int64))])
def test_wrong_inputs_are_refused(tok, texts_):
    """One text, or things that are no texts, or arrays of other types, are errors."""
    with pytest.raises(TokenizerError):
        tok.encode_batch(texts_)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("wrong", [None, float("nan"), ["a"]], ids=str)
def test_what_is_no_text_is_located(tok, wrong, num_threads):
    """Anything but text among many is an error that says where it stands."""
    with pytest.raises(TokenizerError, match=r"texts\[700\] must be a str or bytes, not ") as caught:
        tok.encode_batch(["some text " * 40] * 700 + [wrong] + ["more"], num_threads=num_threads)
    assert caught.value.index == 700


@pytest.mark.parametrize("number", ["a", None, 1.0, True])
def test_ids_and_tokens_of_other_types_are_refused(tok, number):
    """id_to_token() takes whole numbers, token_to_id() texts; load() takes a path or a name."""
    with pytest.raises(TokenizerError, match="whole number"):
        tok.id_to_token(number)
    with pytest.raises(TokenizerError, match="str or bytes"):
        tok.token_to_id(5)
    with pytest.raises(TokenizerError, match="path or by a name"):
        sst.load(None)


def test_a_pattern_that_never_ends_is_stopped(monkeypatch):
    """A regular expression that backtracks for ever raises an error that names it and how far it came."""
    monkeypatch.setattr(patterns, "SPLIT_SECONDS", 0.05)
    pattern = r"x|(?:a|aa|b*)+c"
    with pytest.raises(TokenizerError, match=r"split pattern .*does not come to an end .* after character 2") as caught:
        make(pattern).encode("xx" + "a" * 200)
    assert pattern in str(caught.value)


@pytest.mark.parametrize("num_threads", [0, -1, 257, 1.5, "2", True])
def test_thread_numbers_out_of_range_are_refused(tok, num_threads):
    """num_threads is from 1 to 256."""
    with pytest.raises(TokenizerError, match="num_threads"):
        tok.encode_batch(["a"], num_threads=num_threads)


@pytest.mark.parametrize("special", ["all", ()])
@pytest.mark.parametrize("offsets, index", [([0, 5, 100], 1), ([0, 9, 5, 17], 1), ([-3, 4], 0)])
def test_wrong_offsets_are_named_with_special_tokens_and_without(tok, offsets, index, special):
    """They are the same error where Python cuts a text at special tokens and where C takes it as it is."""
    batch = np.frombuffer(b"some text 1234567", np.uint8), np.array(offsets)
    with pytest.raises(TokenizerError, match=rf"texts\[{index}\].* offsets .*descend or leave the buffer") as caught:
        tok.encode_batch(batch, allowed_special=special, disallowed_special=())
    assert caught.value.index == index
