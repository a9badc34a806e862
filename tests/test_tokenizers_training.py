"""Training: the merges of Hugging Face's trainer, in vocabularies that tiktoken and tokenizers load."""

import random

import fsspec
import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken.load import load_tiktoken_bpe
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

import shardstream as ss
from shardstream._native.bpe_train import Trainer
from shardstream.errors import TokenizerError
from shardstream.tokenizers import patterns, training
from tests import texts
from tests import vocabularies as v
from tests.twins import bpe as splits
from tests.twins import bpe_train as twin

LETTERS = st.lists(st.text("ab ", max_size=40) | st.text("abc'\n ", max_size=60) | st.text(max_size=20), max_size=6)


def hugging_face(pattern: str, corpus: list[str], vocab_size: int) -> Tokenizer:
    """Return what Hugging Face's trainer makes of the texts."""
    regex = patterns.CL100K_JSON if pattern == "cl100k" else patterns.PATTERNS[pattern]
    tokenizer = Tokenizer(models.BPE())
    if pattern == "gpt2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        split = pre_tokenizers.Split(Regex(regex), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=sorted(v.BYTE_CHARS.values()), show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def tokens_and_merges(tokenizer: ss.tokenizers.Tokenizer) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
    """Return the tokens by id, and the merges as bytes."""
    tokens = list(tokenizer.vocabulary.tokens())
    return tokens, [(tokens[a], tokens[b]) for a, b in tokenizer.vocabulary.merges.tolist()]


@settings(max_examples=150, deadline=None)
@given(LETTERS, st.integers(256, 330), st.sampled_from(["gpt2", "o200k"]))
def test_training_equals_counting_anew(corpus, vocab_size, pattern):
    """On texts in which pairs overlap and tie, the merges are those of counting all pairs before each."""
    tokenizer = ss.tokenizers.train(corpus, vocab_size, pattern)
    pieces = [piece.encode() for text in corpus for piece in splits.split(pattern, text)]
    tokens, merges = twin.train(pieces, training.ALPHABET, vocab_size)
    assert tokens_and_merges(tokenizer) == (tokens, [(tokens[a], tokens[b]) for a, b in merges])


@settings(max_examples=100, deadline=None)
@given(LETTERS, st.integers(256, 330))
def test_overlaps_and_ties_are_merged_as_in_tokenizers(corpus, vocab_size):
    """The same texts give Hugging Face's trainer the same ids and merges."""
    ids, merges = v.parts_of(hugging_face("gpt2", corpus, vocab_size))
    assert tokens_and_merges(ss.tokenizers.train(corpus, vocab_size, "gpt2")) == (sorted(ids, key=ids.get), merges)


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "llama3", "qwen2", "o200k"])
def test_real_text_gives_the_vocabulary_of_tokenizers(pattern):
    """2,000 tokens learned from the standard library are Hugging Face's, under every pattern."""
    corpus = texts.library_text(300_000) + texts.adversarial(seed=5, num=200)
    ids, merges = v.parts_of(hugging_face(pattern, corpus, 2000))
    assert tokens_and_merges(ss.tokenizers.train(corpus, 2000, pattern)) == (sorted(ids, key=ids.get), merges)


@pytest.fixture(scope="module")
def trained() -> ss.tokenizers.Tokenizer:
    """A tokenizer of the standard library, with special tokens."""
    return ss.tokenizers.train(texts.library_text(300_000), 3000, "o200k", special_tokens=["<|endoftext|>", "<|pad|>"])


def test_saved_ranks_encode_in_tiktoken(trained, tmp_path):
    """A ``.tiktoken`` file gives tiktoken the same ids, and this library, too."""
    trained.save(tmp_path / "mine.tiktoken")
    special = dict(trained.special_tokens)
    assert special == {"<|endoftext|>": 2998, "<|pad|>": 2999} and trained.vocab_size == 3000
    reference = tiktoken.Encoding("mine", pat_str=patterns.O200K, mergeable_ranks=load_tiktoken_bpe(str(tmp_path / "mine.tiktoken")),
                                  special_tokens=special, explicit_n_vocab=3000)  # fmt: skip
    again = ss.tokenizers.load(tmp_path / "mine.tiktoken", pattern="o200k", special_tokens=special)
    batch = [*texts.adversarial(seed=3, num=300), *texts.library_text(300_000)[:3]]
    for text in batch:
        ids = trained.encode(text, allowed_special="all").tolist()
        assert (
            ids == reference.encode(text, allowed_special="all") == again.encode(text, allowed_special="all").tolist()
        )
        assert trained.decode(ids) == text


def test_saved_json_encodes_in_tokenizers(trained, tmp_path):
    """A ``tokenizer.json`` gives tokenizers the same ids, special tokens among them."""
    trained.save(tmp_path / "tokenizer.json")
    reference, again = Tokenizer.from_file(str(tmp_path / "tokenizer.json")), ss.tokenizers.load(tmp_path)
    assert reference.get_vocab_size() == 3000
    for text in [*texts.adversarial(seed=4, num=300), *texts.library_text(300_000)[:3]]:
        ids = trained.encode(text, allowed_special="all").tolist()
        assert ids == reference.encode(text).ids == again.encode(text, allowed_special="all").tolist()


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "llama3", "qwen2"])
def test_saved_files_carry_every_pattern(pattern, tmp_path):
    """Whatever the pattern, both files encode adversarial texts as the tokenizer that wrote them does."""
    tokenizer = ss.tokenizers.train(texts.library_text(100_000), 600, pattern)
    tokenizer.save(tmp_path / "mine.tiktoken")
    tokenizer.save(tmp_path / "tokenizer.json")
    ranks = load_tiktoken_bpe(str(tmp_path / "mine.tiktoken"))
    openai = tiktoken.Encoding("mine", pat_str=patterns.PATTERNS[pattern], mergeable_ranks=ranks, special_tokens={})
    face = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in texts.adversarial(seed=6, num=150):
        assert tokenizer.encode(text).tolist() == openai.encode_ordinary(text) == face.encode(text).ids


def test_saved_cl100k_keeps_its_rule_of_the_end(tmp_path):
    """Blanks after the last newline are one piece with it in cl100k's newer form; tokenizers is told so, too."""
    tokenizer = ss.tokenizers.train(["end\n  "] * 9, 300, "cl100k")
    tokenizer.save(tmp_path / "tokenizer.json")
    face = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.encode("end\n  ").tolist()[-1:] == [tokenizer.token_to_id("\n  ")] != [None]
    for text in ("end\n  ", "end\n  x", "end\n  \n", "\n  ", "  "):
        assert tokenizer.encode(text).tolist() == face.encode(text).ids


def test_order_and_kind_of_texts_do_not_matter(tmp_path):
    """Shuffled texts, bytes, an iterator and files give the same vocabulary."""
    corpus = texts.library_text(200_000)
    expected = tokens_and_merges(ss.tokenizers.train(corpus, 900))
    shuffled = random.Random(1).sample(corpus, len(corpus))
    for number, text in enumerate(corpus):
        (tmp_path / f"{number}.txt").write_bytes(text.encode())
    remote = fsspec.open_files(f"{tmp_path}/*.txt")  # any store of fsspec's
    for items in (shuffled, [text.encode() for text in corpus], iter(corpus), sorted(tmp_path.glob("*.txt")), remote):
        assert tokens_and_merges(ss.tokenizers.train(items, 900)) == expected


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "llama3", "qwen2", "o200k"])
def test_files_are_cut_where_pieces_end(pattern, tmp_path, monkeypatch):
    """Parts of a file have the pieces of the whole, wherever its blocks happen to end."""
    rng = random.Random(7)
    lines = ["x", "a1", "it's", "'", "end.", "/", "\t", " ", "", "\u4e2d", "1234", " x", "\u00a0", "!\r", "the ", "S"]
    text = "\n".join(rng.choice(lines) for _ in range(3000))
    path = tmp_path / "lines.txt"
    path.write_bytes(text.encode())
    monkeypatch.setattr(training, "FILE_BLOCK_NBYTES", 50)
    parts = [part.decode() for part in training._texts_of_file(lambda: open(path, "rb"), "lines", True)]
    assert len(parts) > 50 and "".join(parts) == text
    assert [piece for part in parts for piece in splits.split(pattern, part)] == splits.split(pattern, text)
    whole = ss.tokenizers.train([text], 300, pattern)
    assert tokens_and_merges(ss.tokenizers.train(path, 300, pattern)) == tokens_and_merges(whole)


def test_texts_that_must_not_be_cut_stay_whole(tmp_path, monkeypatch):
    """Without a split, or with a pattern of the user's, a file is one text."""
    path = tmp_path / "lines.txt"
    path.write_text("ab\nab\n" * 40)
    monkeypatch.setattr(training, "FILE_BLOCK_NBYTES", 50)
    for pattern in (patterns.WHOLE, r"(?s)a.*"):
        tokenizer = ss.tokenizers.train(path, 400, pattern)
        assert max(map(len, tokenizer.vocabulary.tokens())) == 240


def test_unknown_patterns_run_by_regex():
    """A pattern that C does not know gives what the same pattern gives in C."""
    corpus = [*texts.library_text(50_000), *texts.adversarial(seed=8, num=50)]
    slow = ss.tokenizers.train(corpus, 500, f"(?:{patterns.LLAMA3})")
    assert tokens_and_merges(slow) == tokens_and_merges(ss.tokenizers.train(corpus, 500, "llama3"))


@pytest.mark.parametrize("corpus", [[], [""], ["a"], ["a b", "b"], [b"\xff"]])
def test_texts_without_pairs_give_the_bytes(corpus):
    """Nothing to learn is no error: ids are the single bytes and the special tokens."""
    tokenizer = ss.tokenizers.train(
        corpus, 1000, "gpt2" if corpus != ["a b", "b"] else r"\S|\s", special_tokens=["<end>"]
    )
    assert tokenizer.vocab_size == 257 and tokenizer.special_tokens == {"<end>": 256}
    assert tokenizer.decode_bytes(tokenizer.encode(b"any \xff bytes")) == b"any \xff bytes"


def test_bytes_that_are_no_text_are_learned():
    """Bytes outside UTF-8 are merged like any others."""
    tokenizer = ss.tokenizers.train([b"\xff\xfe\xfd" * 9], 258, "gpt2")
    assert tokenizer.id_to_token(256) == b"\xfe\xfd" and tokenizer.encode(b"\xff\xfe\xfd").tolist() == [257]


def test_pieces_of_one_hash_are_told_apart():
    """Of 400,000 pieces some 18 pairs have the same 32 bits of hash; each piece is counted by itself."""
    pieces = np.arange(400_000, dtype="<u4").view(np.uint8) | 0x40
    distinct = len(np.unique(pieces.view("<u4")))
    trainer = Trainer("whole", training.ALPHABET)
    trainer.feed(np.ascontiguousarray(pieces), np.arange(400_001) * 4)
    assert trainer.num_pieces == distinct


def test_long_pieces_are_learned():
    """A piece of 400 kB costs no more than many small ones: each merge looks at its own places only."""
    tokenizer = ss.tokenizers.train(["a" * 2**18 + "ab" * 2**16], 300, "gpt2")
    assert tokenizer.id_to_token(256) == b"aa" and max(map(len, tokenizer.vocabulary.tokens())) > 1000


@pytest.mark.parametrize(("arguments", "message"), [
    ({"vocab_size": 255}, "from 256 .* not 255"), ({"vocab_size": 2**30}, "not 1073741824"), ({"vocab_size": "many"}, "not 'many'"),
    ({"vocab_size": 256, "special_tokens": ["<end>"]}, "from 257"), ({"special_tokens": ["x", "x"]}, "named twice"),
    ({"special_tokens": [""]}, "not empty"), ({"special_tokens": "<end>"}, "is a list"), ({"special_tokens": ["ab"]}, "'ab' is also a token"),
    ({"texts_or_files": "ab"}, "a file is a pathlib.Path"), ({"texts_or_files": ["ab", 1]}, r"texts\[1\] is neither text nor a path but int"),
    ({"pattern": "("}, "not a regular expression"), ({"texts_or_files": None}, "takes a list"),
    *(({"special_tokens": tokens}, "is a list") for tokens in (None, {"<a>", "<b>"}, iter(["<a>"]))), ({"special_tokens": ["\ud800"]}, "lone surrogate"),
])  # fmt: skip
def test_wrong_arguments_are_named(arguments, message):
    """Each illegal argument is a TokenizerError that says the rule and what it got."""
    with pytest.raises(TokenizerError, match=message):
        ss.tokenizers.train(**{"texts_or_files": ["abab"], "vocab_size": 300, **arguments})


def test_files_that_are_not_there_are_named(tmp_path):
    """The system's own error, with the path."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ss.tokenizers.train([tmp_path / "nowhere.txt"], 300)


def test_training_prints_nothing_where_there_is_no_terminal(capfd):
    """The bars belong to terminals."""
    ss.tokenizers.train(["abab"], 257)
    assert capfd.readouterr() == ("", "")


def test_example_of_the_docstring():
    """The docstring's example is true."""
    tok = ss.tokenizers.train(["low lower lowest"] * 9, vocab_size=262, special_tokens=["<end>"])
    assert [tok.id_to_token(i) for i in range(256, tok.vocab_size)] == [
        b"lo",
        b"low",
        b" low",
        b" lowe",
        b"st",
        b"<end>",
    ]
    assert tok.encode_batch(["lower"])[0].dtype == np.uint32
