"""Where the time went, as a picture (``draw``)."""

from __future__ import annotations

import os

from shardstream.bench.run import Measured
from shardstream.errors import ConfigError

LOOP = ("wait_for_blocks", "gather", "transform", "hand_over", "wait_for_workers", "wait_for_consumer")
THREADS = ("fetch", "verify", "decode")


def draw(measured: Measured, path: str | os.PathLike, title: str) -> None:
    """Write a PNG with the shares of the loop's time, and what reading threads did meanwhile.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("a plot needs matplotlib: pip install 'shardstream[plot]'.") from error
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axis = figure.subplots()
    for row, stages in enumerate((THREADS, LOOP)):
        begin = 0.0
        for number, stage in enumerate(stages):
            seconds = measured.stages.get(stage, 0.0)
            axis.barh(row, seconds, left=begin, color=f"C{number + 3 * row}", label=stage.replace("_", " "))
            begin += seconds
    axis.axvline(measured.seconds, color="black", linewidth=0.8, linestyle=":")
    axis.set_yticks([0, 1], ["reading threads", "the loop" if not measured.num_workers else "loop and workers"])
    axis.set_xlabel(f"seconds; the dotted line is the time that passed ({measured.seconds:.1f} s, "
                    f"{measured.samples_per_s:,.0f} samples/s)")  # fmt: skip
    axis.set_title(title, fontsize=10)
    axis.legend(ncols=5, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.25), frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
