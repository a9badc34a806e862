"""``shardstream index``: read WebDataset shards through once, and make a dataset of them if asked."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """\
[bold]Examples[/bold]

    shardstream index 's3://bucket/images/train-{000000..000146}.tar'

    shardstream index 's3://bucket/images/*.tar' --to s3://bucket/images-dataset

    shardstream index images/ --energon
"""


def command(
    urls: Annotated[
        list[str], typer.Argument(metavar="URL...", help="Shards: files, folders, {000..012} or * patterns.")
    ],
    to: Annotated[
        str | None, typer.Option(metavar="DATASET", help="Add them, where they are, to this dataset.")
    ] = None,
    energon: Annotated[
        bool, typer.Option("--energon", help="Write Megatron-Energon's index, X.tar.idx, beside each shard.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the shards as JSON.")] = False,
) -> None:
    """Count the samples of WebDataset shards and remember where they are, so that streams can begin at once."""
    from shardstream.adopt import adopt, index_shards
    from shardstream.cli import show
    from shardstream.storage.urls import redact

    adopted = adopt(urls, to) if to is not None else None
    shards = adopted.shards if adopted is not None else index_shards(urls)
    found = [
        {"url": redact(shard.url), "num_samples": int(shard.index.num_samples.sum()), "nbytes": shard.nbytes}
        for shard in shards
    ]
    if energon:
        from shardstream.energon import write_index

        for shard in shards:
            write_index(shard)
    if as_json:
        show.json({"shards": found, "dataset": to, "version": adopted.version if adopted is not None else None})
        return
    rows = [(shard["url"], f"{shard['num_samples']:,}", show.nbytes(shard["nbytes"])) for shard in found]
    show.table(("shard", "samples", "size"), rows, ("samples", "size"))
    total = sum(shard["num_samples"] for shard in found)
    typer.echo(f"{len(found):,} shards, {total:,} samples, {show.nbytes(sum(shard['nbytes'] for shard in found))}")
    if adopted is not None:
        typer.echo(
            f"{adopted.num_new:,} of them are new in {to}" + (f", version {adopted.version}" if adopted.num_new else "")
        )
