"""``shardstream view``: a dataset in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """\
[bold]Examples[/bold]

    shardstream view demo/stdlib/train

    shardstream view s3://bucket/images --port 8000 --version 12

    shardstream view demo/stdlib/train --json | jq -r --unbuffered .link
"""


def command(
    url: Annotated[str, typer.Argument(metavar="URL", help="A dataset; or shards: a file, folder or pattern.")],
    version: Annotated[str | None, typer.Option(help="Of the dataset: a number, a tag or a time.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0 takes a free one.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the link as a line of JSON.")] = False,
) -> None:
    """Serve pages about a dataset to this machine's browser: versions, statistics, samples. Read-only; Ctrl-C ends it."""
    import msgspec

    from shardstream.storage.urls import redact
    from shardstream.view.server import Server

    server = Server(url, version, port)
    if as_json:
        typer.echo(msgspec.json.encode({"url": redact(url), "link": server.link}).decode())
    else:
        typer.echo(f"Open {server.link} in a browser on this machine; Ctrl-C ends it.")
    try:
        server.serve()
    except KeyboardInterrupt:
        if not as_json:
            typer.echo("")
