"""From a file, a folder or a name to a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shardstream.errors import TokenizerError
from shardstream.tokenizers import patterns
from shardstream.tokenizers.files import read_folder_pair, read_ranks
from shardstream.tokenizers.hf import read_tokenizer_json
from shardstream.tokenizers.tokenizer import Tokenizer
from shardstream.tokenizers.vocab import Vocabulary

# The file with ids and the one with merges, in the two naming schemes.
PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))


def load(path_or_name: str | Path, *, pattern: str | None = None,
         special_tokens: Mapping[str, int] | None = None) -> Tokenizer:  # fmt: skip
    """Return the tokenizer of a file, a folder, or an encoding that an installed tiktoken knows.

    Args:
        path_or_name: ``*.tiktoken``; ``tokenizer.json``; one of ``vocab.json`` and ``merges.txt`` or of
            ``encoder.json`` and ``vocab.bpe``; a folder with one of these; or a name such as ``"o200k_base"``, whose
            ranks come from tiktoken's cache, or from where tiktoken gets them.
        pattern: Name of a split pattern (``patterns.PATTERNS``) or a regular expression. A rank file needs it
            unless it has a name that ``patterns.RANK_FILES`` knows.
        special_tokens: Special tokens in place of those that the files name.

    Raises:
        TokenizerError: There is no such file or encoding, or it is malformed or of a kind that is not supported.
    """
    if not isinstance(path_or_name, str | Path):
        raise TokenizerError(f"A tokenizer is loaded from a path or by a name, not from {path_or_name!r}.")
    path = Path(path_or_name)
    if path.is_dir():
        path = _file_of(path)
    if pattern is not None:
        pattern = patterns.pattern_text(pattern)
    if not path.is_file():
        return Tokenizer(_of_tiktoken(str(path_or_name), pattern, special_tokens))
    try:
        return Tokenizer(_read(path, pattern, special_tokens))
    except TokenizerError as error:
        if error.message.startswith((str(path), str(path.parent))):
            raise
        raise TokenizerError(f"{path}: {error.message}") from None  # of rules that know no file


def _file_of(folder: Path) -> Path:
    for name in ("tokenizer.json", *(name for pair in PAIRS for name in pair)):
        if (folder / name).is_file():
            return folder / name
    ranks = sorted(folder.glob("*.tiktoken"))
    if len(ranks) != 1:
        raise TokenizerError(f"{folder} has no vocabulary, or several; name the file.")
    return ranks[0]


def _read(path: Path, pattern: str | None, special_tokens: Mapping[str, int] | None) -> Vocabulary:
    for encoder, merges in PAIRS:
        if path.name in (encoder, merges):
            files = path.with_name(encoder), path.with_name(merges)
            if missing := [file for file in files if not file.is_file()]:
                raise TokenizerError(f"{path} needs {missing[0].name} beside it.")
            return read_folder_pair(*files, pattern, special_tokens)
    if path.suffix == ".json":
        if pattern is not None or special_tokens is not None:
            raise TokenizerError(f"{path} holds its pattern and special tokens; give neither.")
        return read_tokenizer_json(path.read_bytes(), str(path))
    if path.suffix == ".tiktoken":
        return _read_rank_file(path, pattern, special_tokens)
    raise TokenizerError(f"{path} is neither *.tiktoken nor *.json nor one of the pairs {', '.join(map(' and '.join, PAIRS))}.")


def _read_rank_file(path: Path, pattern: str | None, special_tokens: Mapping[str, int] | None) -> Vocabulary:
    known_pattern, known_tokens = patterns.RANK_FILES.get(path.stem, (None, {}))
    if pattern is None and known_pattern is None:
        raise TokenizerError(f"{path} does not say its split pattern; give pattern=, one of "
                             f"{sorted(patterns.PATTERNS)}.")  # fmt: skip
    return Vocabulary.from_tokens(
        read_ranks(path.read_bytes(), str(path)), known_tokens if special_tokens is None else special_tokens,
        merges=None, pattern=pattern or known_pattern, whole_piece=True,
        nfc=pattern is None and path.stem in patterns.NFC_RANK_FILES,
    )  # fmt: skip


def _of_tiktoken(name: str, pattern: str | None, special_tokens: Mapping[str, int] | None) -> Vocabulary:
    try:
        import tiktoken
    except ImportError:
        tiktoken = None
    if tiktoken is None or name not in tiktoken.list_encoding_names():
        raise TokenizerError(f"{name} is neither a file or folder nor an encoding of an installed tiktoken.")
    try:
        encoding = tiktoken.get_encoding(name)
    except (ImportError, OSError, ValueError) as error:  # no requests, no network, a file that is not the one it pins
        raise TokenizerError(
            f"tiktoken cannot get its encoding {name}: {error}. Put its file into the folder that TIKTOKEN_CACHE_DIR "
            f"names, as tiktoken does, or load {name}.tiktoken by its path.") from error  # fmt: skip
    return Vocabulary.from_tokens(
        encoding._mergeable_ranks, encoding._special_tokens if special_tokens is None else special_tokens,
        merges=None, pattern=pattern or encoding._pat_str, whole_piece=True,
    )  # fmt: skip
