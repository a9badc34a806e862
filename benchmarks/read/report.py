"""Results to tables and plots: standard output, or docs/benchmarks.md and its PNG files."""

from __future__ import annotations

import importlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BEGIN, END = "<!-- read: begin -->", "<!-- read: end -->"
ORDER = ("ours", "webdataset_", "mosaicml", "litdata_", "hf_datasets", "limit")
NAMES = {"ours": "shardstream", "webdataset_": "WebDataset", "mosaicml": "MosaicML", "litdata_": "LitData", "hf_datasets": "HF datasets", "limit": "arrays in RAM"}


def write_report(results: dict, print_only: bool) -> None:
    """Print the tables, or put them between the marks of docs/benchmarks.md and draw its plots."""
    text = "\n".join(tables(results))
    if print_only:
        print(text)
        return
    page = DOCS / "benchmarks.md"
    head, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")
    draw(results, DOCS / "benchmarks-read.png")


def tables(results: dict) -> list[str]:
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']} at the end; Python {machine['python']}, {versions}; {machine['date']}."]
    workloads = dict.fromkeys(run["workload"] for run in results["runs"])
    for workload in workloads:
        runs = [run for run in results["runs"] if run["workload"] == workload]
        best = max((run["samples_per_s"] for run in runs if _is_rival(run)), default=0)
        limit = next((run["samples_per_s"] for run in runs if run["contender"] == "limit" and "error" not in run), 0)
        lines += ["", f"**{workload}**: {_delivers(workload)}", "",
                  "| | workers | samples/s | x best rival | of the limit | first batch, s | CPU, us a sample | memory, MB | on disk, MB |", "|---|" + "--:|" * 8]  # fmt: skip
        lines += [_row(run, best, limit) for run in sorted(runs, key=lambda run: (ORDER.index(run["contender"]), run["place"], run["num_workers"]))]
    return lines


def _is_rival(run: dict) -> bool:
    return run["contender"] not in ("ours", "limit") and run.get("is_exact", False)


def _row(run: dict, best: float, limit: float) -> str:
    name = NAMES[run["contender"]] + (" on S3" if run["place"] == "s3" else "")
    if "error" in run:
        return f"| {name} | {run['num_workers']} | failed: {run['error'].replace('|', '/')} | | | | | | |"
    speed = run["samples_per_s"]
    note = "" if run["is_exact"] else " (not the samples written)"
    return (f"| {name} | {run['num_workers']} | {speed:,.0f}{note} | {_ratio(speed, best)} | {_ratio(speed, limit)} | {run['first_s']:.3f} | "
            f"{run['cpu_us_per_sample']:.1f} | {run['memory_nbytes'] / 1e6:,.0f} | {'' if run['contender'] == 'limit' else format(run['disk_nbytes'] / 1e6, ',.1f')} |")  # fmt: skip


def _ratio(value: float, to: float) -> str:
    return f"{value / to:.2f}" if to else ""


def _delivers(workload: str) -> str:
    return importlib.import_module("benchmarks.read.workloads").WORKLOADS[workload].delivers


def draw(results: dict, path: Path) -> None:
    """Draw samples/s without workers, a panel a workload, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    runs = [run for run in results["runs"] if run["num_workers"] == 0 and run["place"] == "local" and "error" not in run]
    workloads = list(dict.fromkeys(run["workload"] for run in runs))
    figure, axes = pyplot.subplots(2, (len(workloads) + 1) // 2, figsize=(4 * ((len(workloads) + 1) // 2), 6), squeeze=False, layout="constrained")
    for axis, workload in zip(axes.flat, workloads):
        mine = sorted((run for run in runs if run["workload"] == workload), key=lambda run: -ORDER.index(run["contender"]))
        colours = ["#3b6fd4" if run["contender"] == "ours" else "#c9ced8" if run["contender"] == "limit" else "#8a94a6" for run in mine]
        bars = axis.barh([NAMES[run["contender"]] for run in mine], [run["samples_per_s"] for run in mine], color=colours, log=True)
        axis.bar_label(bars, [f" {run['samples_per_s']:,.0f}" for run in mine], fontsize=8)
        axis.margins(x=0.25)
        axis.set_title(f"{workload}, samples/s", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in list(axes.flat)[len(workloads) :]:
        axis.set_visible(False)
    figure.savefig(path, dpi=110)
