"""From the seconds by stage to one line: what bounds, and which setting would move it (``advice``)."""

from __future__ import annotations

from shardstream.bench.run import Measured

NEAR = 0.8  # of a limit: as good as at it

TEXTS = {
    "consumer": "the loop itself takes {share:.0%} of the time; the loader keeps up, so nothing here would make training faster",
    "fetch at the limit": "bytes bound: {rate} of the {limit} that {what} gave just now. Fewer bytes help: fields=, compression=\"zstd\", "
                          "sparse fields as index sets; or cache_dir= on a local disk for the second epoch",
    "fetch below the limit": "waiting for bytes takes {share:.0%} of the time at {rate}, and {what} gave {limit}: let more requests be in flight by "
                             "read=ss.ReadPolicy(memory_limit=...), now {memory_limit}, or write larger blocks and shards",
    "decode": "checksums and decoding bound ({share:.0%} of the time waits for them): read=ss.ReadPolicy(threads=...) if cores are idle, "
              "or StreamLoader(num_workers=...)",
    "gather": "making batches bounds ({share:.0%} of the time): deliver less, by fields=, a narrower dtypes= or sparse=\"jagged\" instead of dense. "
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
    if not measured.num_workers:  # what a worker does beside its stages is in none of the sums
        mine["rest"] = max(0.0, seconds - stages["wait_for_consumer"] - sum(mine.values()))
    if not any(stages[name] for name in ("fetch", "verify", "decode")):  # blocks were kept: what was waited for is the next epoch's plan
        mine["rest"] = mine.get("rest", 0.0) + mine.pop("blocks")
    most = max(mine, key=mine.get)
    share = min(1.0, mine[most] / seconds)
    if most != "blocks":
        return most, share
    if stages["fetch"] >= stages["verify"] + stages["decode"]:
        return ("fetch at the limit" if measured.nbytes_per_s > NEAR * rate_limit else "fetch below the limit"), share
    return "decode", share


def advice(measured: Measured, what: str, rate_limit: float, memory_limit: str | int) -> str:
    """Return one line that names the stage that bounds and the setting that would move it."""
    stage, share = bounding_stage(measured, rate_limit)
    return TEXTS[stage].format(share=share, what=what, rate=f"{measured.nbytes_per_s / 1e6:,.0f} MB/s", limit=f"{rate_limit / 1e6:,.0f} MB/s",
                               memory_limit=memory_limit)  # fmt: skip
