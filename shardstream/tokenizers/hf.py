"""Hugging Face's ``tokenizer.json``, for byte-level BPE models: GPT-2, Llama 3, Qwen and their kin.

Read: ``model`` of type BPE without dropout, affixes or byte fallback; ``pre_tokenizer``
ByteLevel, alone or after one Split by a regular expression; ``normalizer`` none or NFC;
``added_tokens``, as special tokens. What is not among these is an error. The post-processor and
decoder are not looked at: ids are those of ``encode(text, add_special_tokens=False)``.
"""

from __future__ import annotations

import json

from shardstream._native import bpe as native
from shardstream.tokenizers import patterns
from shardstream.tokenizers.files import byte_chars, need, read_ids, read_json_bytes, read_merges
from shardstream.tokenizers.vocab import Vocabulary, tables


def read_tokenizer_json(data: bytes, where: str) -> Vocabulary:
    """Return the vocabulary of a ``tokenizer.json``.

    Raises:
        TokenizerError: The file is malformed, or asks for what is not supported.
    """
    content = read_json_bytes(data, where)
    need(isinstance(content, dict), where, "a tokenizer.json is an object")
    model = content.get("model")
    need(isinstance(model, dict) and model.get("type", "BPE") == "BPE", where, "the model is not of type BPE")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        need(not model.get(name), where, f"a model with {name} is not supported")
    nfc = _is_nfc(content.get("normalizer"), where)
    special_tokens = _added_tokens(content.get("added_tokens") or [], nfc, where)
    ids = read_ids(model.get("vocab"), special_tokens, where)
    return Vocabulary.from_tokens(
        ids, special_tokens, merges=read_merges(model.get("merges"), ids, where),
        pattern=_pattern(content.get("pre_tokenizer"), where), whole_piece=model.get("ignore_merges") is True,
        nfc=nfc,
    )  # fmt: skip


def _added_tokens(added, nfc: bool, where: str) -> dict[str, int]:
    need(isinstance(added, list), where, "added_tokens is a list")
    special = {}
    for token in added:
        need(isinstance(token, dict) and type(token.get("id")) is int and isinstance(token.get("content"), str),
             where, "an added token has an id and content")  # fmt: skip
        for name in ("single_word", "lstrip", "rstrip"):
            need(not token.get(name), where, f"the added token {token['content']!r} has {name}, which is not supported")
        need(not (nfc and token.get("normalized")), where,
             f"the added token {token['content']!r} is looked for in normalized text, which is not supported")  # fmt: skip
        special[token["content"]] = token["id"]
    return special


def _steps(step, list_name: str) -> list:
    """Return the steps of a normalizer or pre-tokenizer, one after another."""
    if step is None:
        return []
    if isinstance(step, dict) and step.get("type") == "Sequence" and isinstance(step.get(list_name), list):
        return [inner for part in step[list_name] for inner in _steps(part, list_name)]
    return [step]


def _is_nfc(normalizer, where: str) -> bool:
    steps = _steps(normalizer, "normalizers")
    need(all(isinstance(step, dict) and step.get("type") == "NFC" for step in steps), where,
         "the normalizer is not NFC, the only one supported")  # fmt: skip
    return bool(steps)


def _pattern(pre_tokenizer, where: str) -> str:
    steps = _steps(pre_tokenizer, "pretokenizers")
    need(bool(steps) and all(isinstance(step, dict) for step in steps), where, "there is no pre-tokenizer")
    *splits, last = steps
    need(last.get("type") == "ByteLevel" and not last.get("add_prefix_space"), where,
         "the pre-tokenizer does not end with ByteLevel, or adds a blank in front")  # fmt: skip
    if not splits:
        return patterns.GPT2 if last.get("use_regex", True) else patterns.WHOLE
    split = splits[0]
    regex = split.get("pattern", {}).get("Regex") if isinstance(split.get("pattern"), dict) else None
    need(len(splits) == 1 and split.get("type") == "Split" and isinstance(regex, str) and not last.get("use_regex", True),
         where, "the pre-tokenizer is not one Split by a regular expression before ByteLevel")  # fmt: skip
    kept = (split.get("behavior"), bool(split.get("invert")))
    need(kept in (("Isolated", False), ("Removed", True)), where, f"Split with {kept[0]} and invert {kept[1]}")
    return regex


def tokenizer_json(vocab: Vocabulary) -> bytes:
    """Return what a ``tokenizer.json`` holds that gives the same ids in tokenizers."""
    merges = vocab.merges.tolist() if vocab.merges is not None else _merges_of_ranks(vocab)
    chars = {number: byte_chars(token) for token, number in vocab.tokens().items()}
    # Where an added token is not in the model's vocabulary, tokenizers gives it the next free id, whatever it says.
    named = {number: text for text, number in vocab.special_tokens.items()} | chars
    content = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": number, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for text, number in vocab.special_tokens.items()],
        "normalizer": {"type": "NFC"} if vocab.nfc else None,
        "pre_tokenizer": _pre_tokenizer(vocab.pattern),
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": vocab.whole_piece, "vocab": {named[number]: number for number in sorted(named)},
                  "merges": [[chars[left], chars[right]] for left, right in merges]},
    }  # fmt: skip
    return json.dumps(content, ensure_ascii=False).encode()


def _merges_of_ranks(vocab: Vocabulary) -> list[list[int]]:
    """Return pairs that merge in the order of their tokens' ranks, with the same effect as the ranks.

    A token has one pair if the merges of lower rank make it. Otherwise each cut of it is listed, and what comes to
    lie side by side decides.
    """
    tokens, halves, merges = vocab.tokens(), tables(vocab).halves().tolist(), []
    for token, number in tokens.items():
        if halves[number][0] != native.NO_ID:
            merges.append(halves[number])
        else:
            cuts = ((tokens.get(token[:i]), tokens.get(token[i:])) for i in range(1, len(token)))
            merges += [[left, right] for left, right in cuts if left is not None and right is not None]
    return merges


def _pre_tokenizer(pattern: str) -> dict:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    if patterns.NATIVE.get(pattern) == "gpt2":
        return byte_level | {"use_regex": True}
    if pattern == patterns.WHOLE:
        return byte_level
    regex = patterns.CL100K_JSON if pattern == patterns.CL100K else pattern
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, byte_level]}
