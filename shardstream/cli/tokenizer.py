"""``shardstream tokenizer``: train a vocabulary, look into one, encode text with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from shardstream.storage.find import FoundFile
    from shardstream.tokenizers import Tokenizer

EXAMPLES = """\
[bold]Examples[/bold]

    shardstream tokenizer train corpus.txt --vocab-size 32000 --to words.json

    shardstream tokenizer encode words.json 'hello world'

    shardstream tokenizer info words.json
"""
TRAIN_EXAMPLES = """\
[bold]Examples[/bold]

    shardstream tokenizer train corpus.txt --vocab-size 32000 --to vocab/tokenizer.json --special '<|endoftext|>'

    shardstream tokenizer train '${stdlib}' --include '*.py' --exclude site-packages --vocab-size 8192 --to py.json

    shardstream tokenizer train books --pattern o200k --vocab-size 50000 --to books.tiktoken

    shardstream tokenizer train 's3://bucket/corpus/**/*.txt.gz' --vocab-size 50000 --to corpus.json
"""
ENCODE_EXAMPLES = """\
[bold]Examples[/bold]

    shardstream tokenizer encode cl100k_base 'hello world'

    shardstream tokenizer encode demo/tokenizer.json --tokens < README.md

    shardstream tokenizer encode books.tiktoken --pattern o200k 'hello' --json | jq '.[].ids'
"""
INFO_EXAMPLES = """\
[bold]Examples[/bold]

    shardstream tokenizer info demo/tokenizer.json

    shardstream tokenizer info o200k_base --json | jq .vocab_size
"""

app = typer.Typer(no_args_is_help=True, help="Train byte-pair vocabularies, look into them, encode text.",
                  epilog=EXAMPLES)  # fmt: skip

Vocabulary = Annotated[
    str,
    typer.Argument(metavar="VOCABULARY", help="A file, a folder with one, or an encoding of an installed tiktoken."),
]
Pattern = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Split pattern of a .tiktoken file: a name such as cl100k, or a regular expression."
    ),
]


@app.command(epilog=TRAIN_EXAMPLES)
def train(
    texts: Annotated[
        list[str],
        typer.Argument(metavar="TEXT...", help="Files of UTF-8, or folders of them, local or remote; ${stdlib} is Python's library."),
    ],
    to: Annotated[str, typer.Option(metavar="FILE", help="Where the vocabulary goes: *.json or *.tiktoken.")],
    vocab_size: Annotated[int, typer.Option(metavar="N", help="Ids in all, special tokens counted.")],
    pattern: Annotated[
        str, typer.Option(metavar="NAME", help="gpt2, cl100k, llama3, qwen2, o200k, or a regular expression.")
    ] = "cl100k",
    special: Annotated[list[str] | None, typer.Option(metavar="TOKEN", help="A special token. Repeatable.")] = None,
    include: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Files of folders that may come. Repeatable.")
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Files and folders that may not, beside hidden ones. Repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Learn a byte-pair vocabulary from texts, with the merges of Hugging Face's trainer."""
    import time

    from shardstream.cli import show
    from shardstream.tokenizers import train

    path, files = _target(to), _texts(texts, include or ["*"], [".*", *(exclude or ())])
    start, nbytes = time.monotonic(), sum(text.file.nbytes for text in files)
    tokenizer = train(files, vocab_size, pattern, special_tokens=special or ())
    seconds = time.monotonic() - start
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(path)
    report = {
        "vocabulary": str(path), "vocab_size": tokenizer.vocab_size, "num_merges": len(tokenizer.vocabulary.merges),
        "special_tokens": dict(tokenizer.special_tokens), "pattern": pattern, "num_files": len(files),
        "nbytes_in": nbytes, "seconds": round(seconds, 3),
    }  # fmt: skip
    if as_json:
        show.json(report)
        return
    typer.echo(f"{path}: {tokenizer.vocab_size:,} ids, {len(tokenizer.vocabulary.merges):,} of them merged")
    typer.echo(
        f"{len(files):,} files, {show.nbytes(nbytes)} in {seconds:.1f} s ({nbytes / 1e6 / max(seconds, 1e-9):.1f} MB/s)"
    )
    if tokenizer.vocab_size < vocab_size:
        typer.echo(f"the texts have no pair left to merge, so there are fewer than {vocab_size:,} ids")
    if path.suffix == ".tiktoken":
        typer.echo(f"a .tiktoken file holds neither pattern nor special tokens: load it with pattern {pattern}")


@app.command(epilog=ENCODE_EXAMPLES)
def encode(
    vocabulary: Vocabulary,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Left out: standard input, as one text.")
    ] = None,
    pattern: Pattern = None,
    special: Annotated[
        bool, typer.Option("--special", help="Special tokens in the text become their own ids.")
    ] = False,
    tokens: Annotated[bool, typer.Option("--tokens", help="Print what each id stands for, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print ids and tokens as JSON.")] = False,
) -> None:
    """Print the ids of texts, a line each."""
    import sys

    from shardstream.cli import show
    from shardstream.tokenizers import load

    tokenizer = load(vocabulary, pattern=pattern)
    batch = list(texts) if texts else [sys.stdin.buffer.read()]
    ids, offsets = tokenizer.encode_batch(batch, allowed_special="all" if special else ())
    rows = [ids[begin:end].tolist() for begin, end in zip(offsets, offsets[1:])]
    if as_json:
        show.json([{"ids": row, "tokens": [_shown(tokenizer, number) for number in row]} for row in rows])
        return
    for row in rows:
        typer.echo(" ".join(map(str, row)))
        if tokens:
            typer.echo(" ".join(repr(_shown(tokenizer, number)) for number in row))


@app.command(epilog=INFO_EXAMPLES)
def info(
    vocabulary: Vocabulary,
    pattern: Pattern = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Show a vocabulary's size, pattern, special tokens and rules."""
    from shardstream.cli import show
    from shardstream.tokenizers import load
    from shardstream.tokenizers.patterns import NATIVE

    tokenizer = load(vocabulary, pattern=pattern)
    vocab = tokenizer.vocabulary
    tokens = vocab.tokens()
    longest = max(tokens, key=lambda token: (len(token), token))
    found = {
        "vocabulary": vocabulary, "vocab_size": tokenizer.vocab_size, "num_tokens": len(tokens),
        "num_merges": None if vocab.merges is None else len(vocab.merges),
        "pattern": NATIVE.get(vocab.pattern, vocab.pattern),
        "pattern_in_c": vocab.pattern in NATIVE, "whole_piece": vocab.whole_piece, "nfc": vocab.nfc,
        "longest_token": longest.decode("utf-8", "backslashreplace"), "special_tokens": dict(tokenizer.special_tokens),
        "dtype": "uint16" if tokenizer.vocab_size <= 2**16 else "uint32",
    }  # fmt: skip
    if as_json:
        show.json(found)
        return
    special = [f"{text} {number}" for text, number in list(tokenizer.special_tokens.items())[:5]]
    more = f", ... {len(tokenizer.special_tokens) - 5} more" if len(tokenizer.special_tokens) > 5 else ""
    ranks = "ids are ranks" if vocab.merges is None else f"{len(vocab.merges):,} merges"
    typer.echo(f"{vocabulary}: {tokenizer.vocab_size:,} ids ({found['dtype']}), {len(tokens):,} tokens, {ranks}")
    typer.echo(f"pattern: {found['pattern']}" + ("" if found["pattern_in_c"] else " (runs by the regex package)"))
    typer.echo(f"special tokens: {', '.join(special) + more if special else 'none'}")
    typer.echo(f"longest token: {found['longest_token']!r}")
    if vocab.nfc:
        typer.echo("texts are put in normal form C first")


def _shown(tokenizer: Tokenizer, number: int) -> str:
    return tokenizer.id_to_token(number).decode("utf-8", "backslashreplace")


def _target(to: str) -> Path:
    """Return the path to write to, checked before the work."""
    from pathlib import Path

    from shardstream.errors import ConfigError
    from shardstream.tokenizers.tokenizer import PAIR_NAMES

    path = Path(to)
    if path.suffix not in (".json", ".tiktoken") or path.name in PAIR_NAMES:
        raise ConfigError(
            f"--to {to}: a vocabulary is saved as *.json or *.tiktoken, and not as {' or '.join(PAIR_NAMES)}."
        )
    if path.exists():
        raise ConfigError(f"--to {to}: a file stands there; delete it or name another.")
    return path


@dataclass(frozen=True)
class _Text:
    """A file to learn from, wherever it is; decompressed if its name says so."""

    file: FoundFile

    def open(self) -> BinaryIO:
        from shardstream.packing.sources.files import opened

        return opened(self.file, {})

    def __str__(self) -> str:
        return self.file.url


def _texts(names: list[str], include: list[str], exclude: list[str]) -> list[_Text]:
    """Return the files that the arguments name, those of folders chosen and sorted by their names, as sources do."""
    from shardstream.packing.document import Document
    from shardstream.packing.sources.files import FilesSettings, find

    document = Document({"TEXT": names}, {})
    document.expand()
    settings = FilesSettings(paths=document.data["TEXT"], include=tuple(include), exclude=tuple(exclude))
    return [_Text(file) for file in find(settings, document, ("TEXT",))]
