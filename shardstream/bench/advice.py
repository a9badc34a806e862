"""From the seconds by stage to one line: what bounds, and which setting would move it (``advice``)."""

from __future__ import annotations

from shardstream.bench.run import Measured
from shardstream.schema import Sparse
from shardstream.source import Source

NEAR = 0.8  # of a limit: as good as at it

TEXTS = {
    "consumer": "the loop itself takes {share:.0%} of the time; the loader keeps up, so nothing here would make training faster",
    "fetch at the limit": "bytes bound: {rate} of the {limit} that {what} gave just now. Fewer bytes help: {fewer}",
    "fetch below the limit": "waiting for bytes takes {share:.0%} of the time at {rate}, and {what} gave {limit}: {more}",
    "decode": "checksums and decoding bound ({share:.0%} of the time waits for them): read=ss.ReadPolicy(threads=...) if cores are idle, "
              "or StreamLoader(num_workers=...)",
    "gather": "making batches bounds ({share:.0%} of the time): deliver less, by {less}. "
              "Workers would not help: what they make is copied once more",
    "transform": "the transform bounds ({share:.0%} of the time): mark it @ss.batched so that it gets columns of many rows, or "
                 "StreamLoader(num_workers=...)",
    "rest": "no stage bounds: {share:.0%} of the time is the Python of each batch and epoch itself, of which larger batches (batch_size=), and "
            "epochs of more than some batches, need less",
    "hand over": "handing batches from workers over takes {share:.0%} of the time: fewer workers, or none, may be faster",
}  # fmt: skip


def bounding_stage(measured: Measured, rate_limit: float) -> tuple[str, float]:
    """Return the key of TEXTS that says what bounds, and its share of the time."""
    stages, seconds = measured.stages, measured.seconds
    if stages["wait_for_consumer"] > 0.5 * seconds:
        return "consumer", stages["wait_for_consumer"] / seconds
    readers = max(1, measured.num_workers)
    mine = {"blocks": stages["wait_for_blocks"] / readers, "gather": stages["gather"] / readers, "transform": stages["transform"] / readers,
            "hand over": stages["hand_over"] / (readers + bool(measured.num_workers))}  # fmt: skip
    # What a worker does beside its stages is in none of the sums, but the loop waits for it.
    passed = stages["wait_for_workers"] if measured.num_workers else seconds - stages["wait_for_consumer"]
    mine["rest"] = max(0.0, passed - sum(mine.values()))
    if not any(stages[name] for name in ("fetch", "verify", "decode")):  # blocks were kept: what was waited for is the next epoch's plan
        mine["rest"] += mine.pop("blocks")
    most = max(mine, key=mine.get)
    share = min(1.0, mine[most] / seconds)
    if most != "blocks":
        return most, share
    if stages["fetch"] >= stages["verify"] + stages["decode"]:
        return ("fetch at the limit" if measured.nbytes_per_s > NEAR * rate_limit else "fetch below the limit"), share
    return "decode", share


def settings(source: Source, fields: list[str] | None, sparse: str, memory_limit: str | int) -> dict[str, str]:
    """Return what is there to move of a source that is read like this, by its place in TEXTS: no setting that it does not have."""
    more = f"let more requests be in flight by read=ss.ReadPolicy(memory_limit=...), now {memory_limit}, or write larger blocks and shards"
    if not source.is_remote:
        more = f"let more be read ahead by read=ss.ReadPolicy(memory_limit=...), now {memory_limit}, or threads=, or use a faster disk"
    if source.schema is None:
        less = "fields=, or as columns: what is small belongs into shards with a schema, where it is not taken apart sample by sample"
        fewer = "shards without the members that are not used, since a block of the files layout is read whole"
    else:
        has_dense_sets = sparse == "dense" and any(isinstance(source.schema[name], Sparse) for name in fields or source.schema)
        less = 'fields=, a narrower dtypes= or sparse="jagged" instead of dense' if has_dense_sets else "fields= or a narrower dtypes="
        fewer = 'fields=, compression="zstd", sparse fields as index sets'
    return {"less": less, "fewer": fewer + ("; or cache_dir= on a local disk for the second epoch" if source.is_remote else ""), "more": more}


def advice(measured: Measured, what: str, rate_limit: float, may_move: dict[str, str]) -> str:
    """Return one line that names the stage that bounds and the setting that would move it, of those that ``settings`` gave."""
    stage, share = bounding_stage(measured, rate_limit)
    return TEXTS[stage].format(share=share, what=what, rate=f"{measured.nbytes_per_s / 1e6:,.0f} MB/s", limit=f"{rate_limit / 1e6:,.0f} MB/s",
                               **may_move)  # fmt: skip
