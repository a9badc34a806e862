"""``shardstream convert``: shards to memory-mapped columns, and back."""

from __future__ import annotations

import os
from typing import Annotated

import typer

EXAMPLES = """\
[bold]Examples[/bold]

    shardstream convert s3://bucket/words /data/words --part-nbytes 4GB

    shardstream convert /data/words s3://bucket/words-again --compression zstd

    shardstream convert 's3://bucket/words/*.tar' /data/labels --field y
"""


def command(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A dataset or shards; or a folder for MemmapDataset.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The folder to make of it; or the dataset.")],
    field: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Take this field only; may be repeated.")] = None,
    version: Annotated[str | None, typer.Option(help="Of the dataset: a number, a tag or a time; by default the newest.")] = None,
    part_nbytes: Annotated[str, typer.Option(metavar="SIZE", help="Of a part of memory-mapped columns.")] = "1GB",
    shard_nbytes: Annotated[str, typer.Option(metavar="SIZE", help="Of a shard.")] = "64MB",
    compression: Annotated[str | None, typer.Option(metavar="zstd", help="Of shards.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Copy samples from shards to memory-mapped columns for random access on local disk, or the other way round."""
    from shardstream.cli import show
    from shardstream.convert import to_memmap, to_shards
    from shardstream.errors import ConfigError
    from shardstream.storage.urls import is_local, is_mapped, normalise, redact

    if is_mapped(source):
        if version is not None:
            raise ConfigError(f"--version needs a dataset; {source!r} is a folder of memory-mapped columns.")
        num_samples = to_shards(source, target, field, shard_nbytes, compression)
    else:
        if compression is not None:
            raise ConfigError("--compression is for shards; memory-mapped columns are read in place.")
        if not is_local(target) or not os.path.basename(normalise(target)):
            raise ConfigError(f"{redact(target)!r} is not a local folder; {redact(source)!r} holds shards, which become "
                              "memory-mapped columns.")  # fmt: skip
        num_samples = to_memmap(source, target, field, part_nbytes, version)
    if as_json:
        show.json({"source": redact(source), "target": redact(target), "num_samples": num_samples})
    else:
        typer.echo(f"{num_samples:,} samples in {redact(target)}")
