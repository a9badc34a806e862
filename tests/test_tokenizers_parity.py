"""Ids are those of tiktoken and of Hugging Face's tokenizers, on real and on adversarial text."""

import zipfile

import pytest
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken.load import load_tiktoken_bpe

import shardstream.tokenizers as sst
from shardstream._native import bpe as native
from shardstream.tokenizers import patterns
from tests import texts
from tests import vocabularies as v

RANK_FILES = {name: f"vocab/{'tiktoken' if 'k_base' in name else name}/{name}.tiktoken" for name in patterns.RANK_FILES if name != "gpt2"}


@pytest.fixture(scope="module", params=["gpt2", "cl100k", "llama3", "qwen2", "o200k"])
def trained(request, tmp_path_factory):
    """One vocabulary that we learned from this machine's own text and saved, in our hands, in tiktoken's and in
    tokenizers'.
    """
    learned = sst.train(texts.library_text(600_000), 3000, request.param, special_tokens=["<|endoftext|>", "<|pad|>"])
    folder = tmp_path_factory.mktemp("vocab")
    learned.save(folder / "own.tiktoken")
    learned.save(folder / "own.json")
    special = dict(learned.special_tokens)
    ours = sst.load(folder / "own.tiktoken", pattern=request.param, special_tokens=special)
    ranks = load_tiktoken_bpe(str(folder / "own.tiktoken"))
    encoding = tiktoken.Encoding("own", pat_str=patterns.PATTERNS[request.param], mergeable_ranks=ranks, special_tokens=special,
                                 explicit_n_vocab=3000)  # fmt: skip
    return ours, encoding, tokenizers.Tokenizer.from_file(str(folder / "own.json"))


def check(ours, batch, expected):
    """Compare a batch's ids, text by text, to show the text that differs."""
    ids, offsets = ours
    for i, text in enumerate(batch):
        assert ids[offsets[i] : offsets[i + 1]].tolist() == expected[i], repr(text)


def check_both(trained, batch):
    ours, encoding, reference = trained
    got = ours.encode_batch(batch)
    check(got, batch, encoding.encode_ordinary_batch(batch, num_threads=1))
    reference.encode_special_tokens = True  # "<|endoftext|>" is ordinary text
    check(got, batch, [e.ids for e in reference.encode_batch_fast(batch, add_special_tokens=False)])


def test_library_sources(trained):
    """Text like the training text, and other text, and everything twice for the cache."""
    batch = texts.library_text(1_000_000)
    check_both(trained, batch + batch[:5])


def test_adversarial_texts(trained):
    """Seeded texts dense in what patterns ask about."""
    check_both(trained, texts.adversarial(seed=3, num=4000))


def test_repeated_tokens(trained):
    """Tokens of the vocabulary, repeated, cut and joined."""
    check_both(trained, texts.repeated(9, 4000, texts.strings(trained[0].vocabulary.tokens())))


def test_every_code_point(trained):
    """Each character by itself in a row of others."""
    check_both(trained, texts.code_points(every=16))


@settings(max_examples=200)
@given(st.text(st.characters(), max_size=50))
def test_any_string(trained, text):
    """Any string, lone surrogates as tiktoken treats them: those become U+FFFD."""
    ours, encoding, _ = trained
    ids = ours.encode(text, disallowed_special=())  # hypothesis tries the literals that it finds in sources, too
    assert ids.tolist() == encoding.encode_ordinary(text)
    assert ours.decode(ids) == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


SPECIAL_TEXTS = ["<|endoftext|>", "a<|endoftext|><|pad|> b\n<|endoftext|>", "<|endoftext", "\n <|pad|>\n",
                 "<|end<|pad|>oftext|>", ""]  # fmt: skip


@pytest.mark.parametrize("allowed", [(), ("<|pad|>",), "all"])
def test_special_tokens(trained, allowed):
    """Allowed special tokens are ids and cut the text, others are text, as in tiktoken."""
    ours, encoding, _ = trained
    batch = SPECIAL_TEXTS + texts.adversarial(seed=4, num=300)
    allowed_set = allowed if allowed == "all" else set(allowed)
    check(ours.encode_batch(batch, allowed_special=allowed), batch,
          [encoding.encode(text, allowed_special=allowed_set, disallowed_special=()) for text in batch])  # fmt: skip


def test_special_tokens_in_tokenizers(trained):
    """With all allowed, ids are those of tokenizers, which always takes them."""
    ours, _, reference = trained
    reference.encode_special_tokens = False
    batch = SPECIAL_TEXTS + texts.adversarial(seed=5, num=300)
    check(ours.encode_batch(batch, allowed_special="all"), batch,
          [e.ids for e in reference.encode_batch(batch, add_special_tokens=False)])  # fmt: skip


def shared_texts() -> list[str]:
    """Return a sample of the shared text in every language it has."""
    batch = []
    for path in sorted(texts.shared("text/multilingual").glob("*.txt")):
        lines = path.read_text(encoding="utf-8").splitlines(True)
        batch += ["".join(lines[i : i + 20]) for i in range(0, len(lines), 40)]
    batch += [path.read_bytes().decode("latin-1")[:30_000] for path in sorted(texts.shared("text/reuters").glob("*.sgm"))[::3]]
    for name in ("text/nltk_movie_reviews.zip", "text/multilingual/nltk_genesis.zip"):
        with zipfile.ZipFile(texts.shared(name)) as archive:
            members = [member for member in archive.namelist() if member.endswith(".txt")]
            batch += [archive.read(member).decode("latin-1")[:20_000] for member in members[:: max(1, len(members) // 12)]]
    return [*batch, texts.shared("text/tinyshakespeare.txt").read_text()[:100_000]]


@pytest.mark.parametrize("name", RANK_FILES)
def test_published_rank_files(name):
    """r50k, p50k, cl100k, o200k, llama3 and qwen2 on shared text, adversarial text and all characters, as tiktoken."""
    path = texts.shared(RANK_FILES[name])
    ours = sst.load(path, pattern=patterns.RANK_FILES[name][0])  # naming the pattern leaves out qwen2's normal form
    vocab = ours.vocabulary
    encoding = tiktoken.Encoding(name, pat_str=vocab.pattern, mergeable_ranks=vocab.tokens(),
                                 special_tokens=dict(vocab.special_tokens))  # fmt: skip
    batch = shared_texts() + texts.adversarial(seed=6, num=1500) + texts.code_points(every=32)
    batch += texts.repeated(10, 4000, texts.strings(vocab.tokens()))
    check(ours.encode_batch(batch), batch, encoding.encode_ordinary_batch(batch, num_threads=1))


def test_gpt2_files():
    """GPT-2 from tokenizer.json and from its pair of files, as tokenizers."""
    folder = texts.shared("vocab/gpt2")
    reference = tokenizers.Tokenizer.from_file(str(folder / "gpt2_tokenizer.json"))
    batch = shared_texts()[::2] + texts.adversarial(seed=7, num=1000) + texts.code_points(every=32)
    expected = [e.ids for e in reference.encode_batch_fast(batch, add_special_tokens=False)]
    for name in ("gpt2_tokenizer.json", "vocab.bpe", ""):
        check(sst.load(folder / name).encode_batch(batch, allowed_special="all"), batch, expected)


def test_qwen2_files(tmp_path):
    """Qwen2 from its pair of files, with normal form C of Unicode 9.0 in front, as tokenizers."""
    ours = sst.load(texts.shared("vocab/qwen2/vocab.json"))
    ours.save(tmp_path / "tokenizer.json")
    reference = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    batch = shared_texts()[::2] + texts.adversarial(seed=8, num=1000) + texts.code_points(every=32)
    batch += texts.code_points("e{0}\u0301\u0316{0} ", every=1024)[::8]
    expected = [e.ids for e in reference.encode_batch_fast(batch, add_special_tokens=False)]
    check(ours.encode_batch(batch, allowed_special="all"), batch, expected)
    by_rank = sst.load(texts.shared("vocab/qwen2/qwen2.tiktoken"))
    check(by_rank.encode_batch(batch, allowed_special="all"), batch, expected)


def test_llama3_has_tokens_that_merging_never_makes():
    """The 588 of them are found whole only, as in tiktoken."""
    ours = sst.load(texts.shared("vocab/llama3/llama3.tiktoken"))
    tokens = ours.vocabulary.tokens()
    merged = v.encode(native.Scratch(v.build(tokens)), list(tokens))
    unmade = [token for token, ids in zip(tokens, merged) if len(ids) > 1]
    assert len(unmade) == 588
    encoding = tiktoken.Encoding("llama3", pat_str=patterns.LLAMA3, mergeable_ranks=tokens, special_tokens={})
    batch = [token.decode() for token in unmade if token.decode("utf-8", "ignore").encode() == token]
    batch += [f"{text}{text} x{text}" for text in batch]
    check(ours.encode_batch(batch), batch, encoding.encode_ordinary_batch(batch, num_threads=1))
