"""Vocabularies on disk: what is written is read again, by us and by others; what is malformed is named."""

import base64
import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import tiktoken
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tiktoken import registry
from tiktoken_ext import openai_public

import shardstream.tokenizers as sst
from shardstream.errors import TokenizerError
from shardstream.tokenizers import patterns
from shardstream.tokenizers.files import byte_chars, read_ranks
from shardstream.tokenizers.hf import read_tokenizer_json
from tests import texts
from tests import vocabularies as v

BYTE_RANKS = {bytes([b]): b for b in range(256)}


def rank_lines(ranks: dict[bytes, int]) -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items())


@pytest.fixture
def content() -> dict:
    """A small tokenizer.json, as tokenizers writes it."""
    return json.loads(v.trained(patterns.O200K).to_str())


def test_a_rank_file_comes_back_byte_by_byte(tmp_path):
    """Loading and saving a .tiktoken file changes nothing, through a tokenizer.json, too."""
    ranks, _ = v.parts_of(v.trained(patterns.O200K))
    first = tmp_path / "a.tiktoken"
    first.write_bytes(rank_lines(ranks))
    sst.load(first, pattern="o200k").save(tmp_path / "b.json")
    sst.load(tmp_path / "b.json").save(tmp_path / "c.tiktoken")
    assert (tmp_path / "c.tiktoken").read_bytes() == first.read_bytes()


def test_late_tokens_survive_a_tokenizer_json(tmp_path):
    """Ranks that no single merge a token can express are written as every cut, and give the same ids."""
    ranks = BYTE_RANKS | {b"abc": 256, b"ab": 257, b"bcab": 258, b"ca": 259}
    (tmp_path / "a.tiktoken").write_bytes(rank_lines(ranks))
    ours = sst.load(tmp_path / "a.tiktoken", pattern="gpt2")
    ours.save(tmp_path / "a.json")
    again = sst.load(tmp_path / "a.json")
    for text in ("abc", "abcab", "cabcabca", "abcabcab" * 9):
        assert again.encode(text).tolist() == ours.encode(text).tolist()


@pytest.mark.parametrize("ignore_merges", [False, True])
def test_tokens_that_no_merge_makes_are_found_as_the_file_says(tmp_path, content, ignore_merges):
    """With ignore_merges a piece that is a token is that token, otherwise what merging makes of it, as in tokenizers."""
    content["model"]["vocab"] |= {"Wahnfried": 4000}
    content["model"]["ignore_merges"] = ignore_merges
    (tmp_path / "a.json").write_text(json.dumps(content))
    sst.load(tmp_path / "a.json").save(tmp_path / "b.json")
    for name in ("a.json", "b.json"):
        ids = sst.load(tmp_path / name).encode("Wahnfried").tolist()
        assert ids == tokenizers.Tokenizer.from_file(str(tmp_path / name)).encode("Wahnfried").ids
        assert (ids == [4000]) == ignore_merges


def test_a_normal_form_does_not_fit_a_rank_file(tmp_path, content):
    """A .tiktoken file would lose it in silence: "e" with an accent after it would have other ids."""
    content["normalizer"] = {"type": "NFC"}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match=r"[/\\]a.tiktoken: .*normal form C.* Write a tokenizer.json"):
        sst.load(tmp_path / "a.json").save(tmp_path / "a.tiktoken")
    assert not (tmp_path / "a.tiktoken").exists()


def test_all_that_decides_on_ids_is_in_the_digest(content):
    """Jobs go on with the same vocabulary only, and its digest is how they know."""
    vocab = read_tokenizer_json(json.dumps(content).encode(), "own")
    others = [{"nfc": True}, {"whole_piece": True}, {"pattern": patterns.GPT2}, {"special_tokens": {"<|x|>": 4000}},
              {"merges": None}, {"merges": vocab.merges[::-1]}, {"kinds": vocab.kinds * 2}]  # fmt: skip
    digests = [vocab.digest(), *(dataclasses.replace(vocab, **change).digest() for change in others)]
    assert len(set(digests)) == len(digests)
    assert dataclasses.replace(vocab, merges=vocab.merges.copy()).digest() == digests[0]


def test_merges_in_another_order_do_not_fit_a_rank_file(tmp_path):
    """A list of merges that is not in the order of ids is refused, not written wrongly."""
    content = json.loads(v.trained(patterns.O200K).to_str())
    content["model"]["merges"][:2] = content["model"]["merges"][1::-1]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match="Write a tokenizer.json"):
        sst.load(tmp_path / "a.json").save(tmp_path / "a.tiktoken")


def test_a_folder_is_looked_through(tmp_path, content):
    """A folder gives its tokenizer.json, its pair of files or its only rank file."""
    model = content["model"]
    for names in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        folder = tmp_path / names[0]
        folder.mkdir()
        (folder / names[0]).write_text(json.dumps(model["vocab"] | {"<|endoftext|>": 5000}))
        lines = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
        (folder / names[1]).write_text("#version: 0.2\n" + "\n".join(lines) + "\n", encoding="utf-8")
        tok = sst.load(folder)
        assert tok.vocabulary.pattern == patterns.GPT2 and tok.special_tokens == {"<|endoftext|>": 5000}
        assert tok.encode_batch(texts.library_text(1000))[0].tolist() == sst.load(folder / names[1]).encode_batch(texts.library_text(1000))[0].tolist()
        (folder / names[1]).unlink()
        with pytest.raises(TokenizerError, match="beside it"):
            sst.load(folder)
    (tmp_path / "json").mkdir()
    (tmp_path / "json/tokenizer.json").write_text(json.dumps(content))
    assert sst.load(tmp_path / "json").vocabulary.pattern == patterns.O200K
    (tmp_path / "ranks").mkdir()
    with pytest.raises(TokenizerError, match="no vocabulary"):
        sst.load(tmp_path / "ranks")
    (tmp_path / "ranks/own.tiktoken").write_bytes(rank_lines(BYTE_RANKS))
    assert sst.load(tmp_path / "ranks", pattern="gpt2").vocab_size == 256


def test_the_tokenizer_class_gives_the_pattern(tmp_path, content):
    """tokenizer_config.json beside a pair of files names the class, and with it pattern and normal form."""
    (tmp_path / "vocab.json").write_text(json.dumps(content["model"]["vocab"]))
    (tmp_path / "merges.txt").write_text("")
    config = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": {"4000": {"content": "<|im_end|>"}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    vocab = sst.load(tmp_path).vocabulary
    assert (vocab.pattern, vocab.nfc, vocab.special_tokens) == (patterns.QWEN2, True, {"<|im_end|>": 4000})
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "OtherTokenizer"}))
    with pytest.raises(TokenizerError, match="OtherTokenizer"):
        sst.load(tmp_path)


def test_names_come_from_tiktoken(tmp_path, monkeypatch):
    """A name that tiktoken knows is loaded through it, without network if its cache has the file."""
    constructor = {"name": "own", "pat_str": patterns.QWEN2, "mergeable_ranks": BYTE_RANKS,
                   "special_tokens": {"<|x|>": 256}}  # fmt: skip
    monkeypatch.setattr(tiktoken, "list_encoding_names", lambda: ["own"])
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: tiktoken.Encoding(**constructor))
    tok = sst.load("own")
    assert tok.vocab_size == 257 and tok.encode("a<|x|>", allowed_special="all").tolist() == [97, 256]
    assert tok.vocabulary.pattern == patterns.QWEN2
    with pytest.raises(TokenizerError, match="neither a file or folder nor an encoding"):
        sst.load("another")


def test_rank_files_of_tiktoken_have_its_patterns_and_special_tokens(monkeypatch):
    """What we know of a file by its name is what tiktoken says of the encoding; C knows the patterns of all."""
    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", lambda *_, **__: {})
    monkeypatch.setattr(openai_public, "data_gym_to_mergeable_bpe_ranks", lambda *_, **__: {})
    encodings = {name: constructor() for name, constructor in openai_public.ENCODING_CONSTRUCTORS.items()}
    known = {name: found for name, found in patterns.RANK_FILES.items() if name in encodings}
    assert known == {name: (encodings[name]["pat_str"], encodings[name]["special_tokens"]) for name in known}
    assert len(known) == 5 and all(encoding["pat_str"] in patterns.NATIVE for encoding in encodings.values())


def test_special_tokens_of_llama3_are_meta_s():
    """As in Meta's tokenizer.py: ten by name, and reserved ones up to the 256th."""
    special = patterns.RANK_FILES["llama3"][1]
    assert len(special) == len(set(special.values())) == 256
    assert (special["<|begin_of_text|>"], special["<|end_of_text|>"], special["<|reserved_special_token_3|>"],
            special["<|start_header_id|>"], special["<|end_header_id|>"], special["<|reserved_special_token_4|>"],
            special["<|eot_id|>"], special["<|reserved_special_token_5|>"], special["<|reserved_special_token_250|>"]
            ) == (128000, 128001, 128005, 128006, 128007, 128008, 128009, 128010, 128255)  # fmt: skip


def test_names_are_read_from_the_cache_of_tiktoken(tmp_path, monkeypatch):
    """What stands in tiktoken's own cache needs no network, and its special tokens come along."""
    path = texts.shared("vocab/tiktoken/r50k_base.tiktoken")
    url = "https://openaipublic.blob.core.windows.net/encodings/r50k_base.tiktoken"
    shutil.copy(path, tmp_path / hashlib.sha1(url.encode()).hexdigest())  # as tiktoken/load.py names it
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(registry, "ENCODINGS", {})
    ours, ranks = sst.load("r50k_base"), sst.load(path)
    assert ours.special_tokens == ranks.special_tokens == {"<|endoftext|>": 50256}
    assert ours.encode("hello world").tolist() == ranks.encode("hello world").tolist() == [31373, 995]


def test_a_name_that_tiktoken_cannot_get_says_what_to_do(monkeypatch):
    """Without network and cache the error is ours and names the variable of the cache."""

    def fail(name):
        raise ConnectionError("no network")

    monkeypatch.setattr(tiktoken, "list_encoding_names", lambda: ["own"])
    monkeypatch.setattr(tiktoken, "get_encoding", fail)
    with pytest.raises(TokenizerError, match="cannot get its encoding own: no network.*TIKTOKEN_CACHE_DIR"):
        sst.load("own")


@pytest.mark.parametrize(("special", "message"), [
    ({"<x>": "256"}, "'<x>' has '256'"), ({"<x>": True}, "'<x>' has True"), (["<x>"], "a mapping of text to id"),
    ({5: 256}, "5 has 256"), ({"\ud800": 256}, "lone surrogate"), ({"": 256}, "is empty"), ({"<x>": -1}, "one is -1"),
    ({"<x>": 97}, "its id 97 is that of b'a'"), ({"<x>": 256, "<y>": 256}, "'<y>' .* that of b'<x>'"),
])  # fmt: skip
def test_wrong_special_tokens_are_named_with_the_file(tmp_path, special, message):
    """What is no text with a free id of its own is an error that says which, and of which file."""
    path = tmp_path / "own.tiktoken"
    path.write_bytes(rank_lines(BYTE_RANKS))
    with pytest.raises(TokenizerError, match=f"own.tiktoken: .*{message}"):
        sst.load(path, pattern="gpt2", special_tokens=special)


@pytest.mark.parametrize("pattern", ["cl100", "cl100k_base", 5])
def test_a_pattern_that_is_a_word_is_a_name(tmp_path, pattern):
    """A name that is not known is not taken for a regular expression, which would cut at that word only."""
    (tmp_path / "own.tiktoken").write_bytes(rank_lines(BYTE_RANKS))
    for use in (lambda: sst.load(tmp_path / "own.tiktoken", pattern=pattern), lambda: sst.train(["abab"], 257, pattern)):
        with pytest.raises(TokenizerError, match="neither a regular expression nor one of gpt2, "):
            use()


@pytest.mark.parametrize(("vocab", "merges", "message"), [
    ({}, [["ab", "c"], ["a", "b"], ["abc", "a"]], "Merge 2 .* makes none"), ({}, [["b", "a"]], "Merge 0 .* makes none"),
    ({}, [["a", "b"], ["a", "b"]], "Merge 1 came before"), ({"a": None}, [], "byte 97 is not a token"),
    ({}, None, "the merges are a list"), ({"ba": 2**40}, [], "the id of 'ba'"), ({"ba": 256}, [], "have the same id 256"),
])  # fmt: skip
def test_merges_and_tokens_that_do_not_fit_are_named_with_the_file(tmp_path, content, vocab, merges, message):
    """Cyclic, repeated and missing merges, and ids that are taken, huge or missing."""
    tokens = {**{byte_chars(bytes([b])): b for b in range(256)}, "ab": 256, "abc": 257, **vocab}
    content["model"] |= {"vocab": {token: number for token, number in tokens.items() if number is not None},
                         "merges": merges}  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match=f"tokenizer.json: .*{message}"):
        sst.load(tmp_path)


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_tokenizer_json_that_is_cut_off_is_no_json(tmp_path, content, cut):
    """So is one that is nested deeper than Python reads."""
    for data in (json.dumps(content).encode()[:cut], b"[" * 200_000):
        (tmp_path / "tokenizer.json").write_bytes(data)
        with pytest.raises(TokenizerError, match="tokenizer.json is not JSON"):
            sst.load(tmp_path / "tokenizer.json")


def test_part_of_a_name_is_not_the_special_token(tmp_path):
    """A pair of files whose vocabulary has ``<|endoftext|>`` within another token has no special token."""
    tokens = {byte_chars(bytes([b])): b for b in range(256)} | {"x<|endoftext|>": 256}
    (tmp_path / "encoder.json").write_text(json.dumps(tokens))
    (tmp_path / "vocab.bpe").write_text("")
    assert sst.load(tmp_path).special_tokens == {}


@pytest.mark.parametrize(("data", "message"), [
    (b"YQ== 0\nYg==\n", "line 2: expected a token in base64"),
    (b"YQ== 0\n!!! 1\n", "line 2"), (b"YQ= 0\n", "line 1"), (b"YR== 0\n", "line 1"), (b"YQ== -1\n", "line 1"), (b" 1\n", "line 1"),
    (b"YQ== 0\nYQ== 1\n", "line 2: token b'a' came before"),
])  # fmt: skip
def test_malformed_rank_files_are_named_by_line(data, message):
    """A line that is not base64 and a number, or repeats a token, is named."""
    with pytest.raises(TokenizerError, match=message):
        read_ranks(data, "own.tiktoken")


@given(st.binary(max_size=60))
def test_rank_files_of_any_bytes_give_ranks_or_an_error(data):
    """The reader is total."""
    try:
        assert all(type(rank) is int for rank in read_ranks(data, "any").values())
    except TokenizerError:
        pass


def test_two_tokens_of_one_rank_are_refused(tmp_path):
    """Ranks are ids, so they differ."""
    (tmp_path / "a.tiktoken").write_bytes(rank_lines(BYTE_RANKS | {b"ab": 97}))
    with pytest.raises(TokenizerError, match="same id 97"):
        sst.load(tmp_path / "a.tiktoken", pattern="gpt2")


def spoil(content: dict, path: str, value) -> bytes:
    *parents, last = path.split(".")
    place = content
    for name in parents:
        place = place[name]
    place[last] = value
    return json.dumps(content).encode()


@pytest.mark.parametrize(("path", "value", "message"), [
    ("model", None, "not of type BPE"), ("model.type", "Unigram", "not of type BPE"),
    ("model.dropout", 0.1, "dropout"), ("model.byte_fallback", True, "byte_fallback"),
    ("model.vocab", [], "object of token: id"), ("model.vocab", {"a": "b"}, "the id of 'a' is 'b'"),
    ("model.vocab", {"a b": 1}, "stands for no byte"), ("model.vocab", {"a": -1}, "the id of 'a'"),
    ("model.merges", {}, "the merges are a list"), ("model.merges", ["a"], "merge 0 is 'a'"),
    ("model.merges", [["a", "b", "c"]], "merge 0"), ("model.merges", [["a", "\u4e2d"]], "merge 0"), ("model.merges", [7], "merge 0"),
    ("normalizer", {"type": "NFKC"}, "the normalizer is not NFC"),
    ("pre_tokenizer", None, "no pre-tokenizer"), ("pre_tokenizer", {"type": "Whitespace"}, "ByteLevel"),
    ("pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": True}, "blank in front"),
    ("added_tokens", 5, "added_tokens is a list"), ("added_tokens", [{"id": "x"}], "an added token has an id"),
    ("added_tokens", [{"id": 4000, "content": "<x>", "lstrip": True}], "lstrip"),
])  # fmt: skip
def test_what_a_tokenizer_json_may_not_say_is_named(content, path, value, message):
    """Malformed or unsupported parts are typed errors, never ids that differ."""
    with pytest.raises(TokenizerError, match=message):
        read_tokenizer_json(spoil(content, path, value), "tokenizer.json")


def test_added_tokens_of_normalized_text_are_refused(content):
    """Where texts are normalized, an added token that is looked for afterwards may be found elsewhere than before."""
    content["added_tokens"] = [{"id": 4000, "content": "<x>", "normalized": True}]
    assert read_tokenizer_json(json.dumps(content).encode(), "tokenizer.json").special_tokens == {"<x>": 4000}
    content["normalizer"] = {"type": "NFC"}
    with pytest.raises(TokenizerError, match="'<x>' is looked for in normalized text"):
        read_tokenizer_json(json.dumps(content).encode(), "tokenizer.json")


@given(st.recursive(st.none() | st.integers(-5, 5) | st.sampled_from(["BPE", "ByteLevel", "a", "a a"]),
       lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
           ["model", "vocab", "merges", "type", "pre_tokenizer", "pretokenizers", "normalizer", "added_tokens", "id", "content"]), inner, max_size=4),
       max_leaves=12))  # fmt: skip
def test_any_json_gives_a_vocabulary_or_an_error(content):
    """The reader of tokenizer.json is total."""
    try:
        read_tokenizer_json(json.dumps(content).encode(), "any")
    except TokenizerError:
        pass


def test_a_rank_file_needs_a_pattern(tmp_path):
    """Without pattern= and without a known name, there is none to guess."""
    (tmp_path / "own.tiktoken").write_bytes(rank_lines(BYTE_RANKS))
    with pytest.raises(TokenizerError, match="give pattern="):
        sst.load(tmp_path / "own.tiktoken")
    with pytest.raises(TokenizerError, match="not a regular expression"):
        sst.load(tmp_path / "own.tiktoken", pattern="(")


@pytest.mark.parametrize("name", ["v.tiktoken", "v.json"])
def test_a_save_that_fails_leaves_what_was_there(tmp_path, monkeypatch, name):
    """A file has its name when it is whole, and not before; nothing else stays."""
    tokenizer = sst.train(["ab ab"], 258, "gpt2")
    tokenizer.save(tmp_path / name)
    before = (tmp_path / name).read_bytes()

    def write_half(path, data):
        with open(path, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(OSError, match="no space left"):
        sst.train(["cd cd"], 258, "gpt2").save(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("name", ["a.txt", "a"])
def test_other_suffixes_are_not_saved(tmp_path, name):
    """save() knows two formats, by the file's name."""
    with pytest.raises(TokenizerError, match="tiktoken or"):
        sst.Tokenizer(sst.Vocabulary.from_tokens(BYTE_RANKS, {}, merges=None, pattern=patterns.GPT2, whole_piece=True)).save(tmp_path / name)
