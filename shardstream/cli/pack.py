"""``shardstream pack``: run a packing job."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """\
[bold]Examples[/bold]

    shardstream pack configs/pack_text_sparse.yaml

    shardstream pack job.yaml --set output.url=s3://bucket/reviews/{split} --set source.paths=reviews

    shardstream pack job.yaml --json | jq .datasets
"""

REJECTS_SHOWN = 5


def command(
    config: Annotated[str, typer.Argument(metavar="CONFIG.yaml", help="What to pack, how, and where to.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Replace one key, such as output.url; the value is YAML. Repeatable."
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew, and delete what an unfinished job has left at the output.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Pack a source of records into datasets of shards, as a YAML file says.

    What was killed, interrupted or failed is gone on with by the same command; nothing is visible before the end.
    """
    from shardstream.cli import show
    from shardstream.packing import pack

    report = pack(config, overrides or (), restart=restart)
    if as_json:
        show.json(report)
        return
    rows = [
        (
            data.split or "",
            f"{data.num_samples_added:,}",
            data.num_shards,
            show.nbytes(data.nbytes),
            data.version,
            data.url,
        )
        for data in report.datasets
    ]
    show.table(
        ("split", "samples", "shards", "size", "version", "dataset"), rows, ("samples", "shards", "size", "version")
    )
    rate = report.nbytes_in / 1e6 / report.seconds
    typer.echo(
        f"{report.num_records:,} records, {show.nbytes(report.nbytes_in)} in {report.seconds:.1f} s ({rate:.1f} MB/s)"
    )
    if report.num_tokens:
        typer.echo(f"{report.num_tokens:,} tokens ({report.num_tokens / 1e6 / report.seconds:.1f} M tokens/s)")
    if report.num_dropped:
        typer.echo(f"{report.num_dropped:,} rows left out: their labels are of no class")
    if report.num_rejected:
        typer.echo(f"{report.num_rejected:,} records skipped; the first of them:")
        for message in report.rejects[:REJECTS_SHOWN]:
            typer.echo(f"  {message}")
