"""Results to tables and plots: standard output, or docs/benchmarks.md and its PNG file."""

from __future__ import annotations

from benchmarks.read.figures import RIVALS, Figures, best_rival, is_valid, ratio
from benchmarks.read.results import ROOT, Results
from benchmarks.read.workloads import WORKLOADS

DOCS = ROOT / "docs"
BEGIN, END = "<!-- read: begin -->", "<!-- read: end -->"
NAMES = {"ours": "shardstream", "ours_streamed": "shardstream, nothing kept", "webdataset": "WebDataset", "mosaicml": "MosaicML", "litdata": "LitData",
         "hf_arrow": "HF datasets, Arrow", "hf_numpy": "HF datasets, numpy", "limit": "arrays in RAM"}  # fmt: skip
# Of issue 5: times the best rival, share of the limit; images are decoded as fast as by the best rival.
BUDGETS = {"tokens": (12, 0.8), "sparse": (40, 0.8), "blobs": (12, 0.5), "images": (1, None)}
MAX_OF_SMALLEST = 1.02
FIRST_BATCH_S = 0.1


def write_report(results: Results, print_only: bool) -> None:
    """Print the tables, or put them between the marks of docs/benchmarks.md and draw its plot."""
    if not results.pieces:
        print("nothing has been measured on this machine with these versions")
        return
    text = "\n".join([*header(results), *budgets(results), *sizes(results), *tables(results)])
    if print_only:
        print(text)
        return
    page = DOCS / "benchmarks.md"
    head, _, rest = page.read_text().partition(BEGIN)
    picture = "![Samples a second of each contender](benchmarks-read.png)"
    page.write_text(f"{head}{BEGIN}\n\n{text}\n\n{picture}\n\n{END}{rest.partition(END)[2]}")
    draw(results, DOCS / "benchmarks-read.png")


def header(results: Results) -> list[str]:
    machine, pieces = results.machine, results.pieces.values()
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    loads, dates = [piece["load"] for piece in pieces], sorted(piece["date"] for piece in pieces)
    revisions = sorted({piece["revision"] for piece in pieces if piece["revision"]})
    return [f"{machine['cpu']}, {machine['cores']} cores, load {min(loads)} to {max(loads)} with the measurement itself; Python {machine['python']}, "
            f"{versions}; {dates[0]} to {dates[-1]}{', commit ' if revisions else ''}{', '.join(revisions)}."]  # fmt: skip


def budgets(results: Results) -> list[str]:
    """Return what was to be reached beside what was, in one process without workers."""
    lines = ["", "| goal | | obtained | met |", "|---|--:|--:|---|"]
    for workload, (times, share) in BUDGETS.items():
        runs = {run["contender"]: run for run in results.pieces.get(f"{workload}, 0 workers", {}).get("runs", []) if "error" not in run}
        if "ours" not in runs:
            continue
        for mine in ("ours", "ours_streamed"):
            if mine not in runs:
                continue
            for what, rivals in (("the best rival", RIVALS), ("the best rival but Arrow tables", tuple(name for name in RIVALS if name != "hf_arrow"))):
                if rival := best_rival(list(runs.values()), rivals):
                    found = ratio(runs[mine], rival)
                    lines.append(_goal(f"{workload}, {NAMES[mine]}: times {what}, {NAMES[rival['contender']]}", times, found))
            if share is not None and "limit" in runs:
                lines.append(_goal(f"{workload}, {NAMES[mine]}: of the limit", share, ratio(runs[mine], runs["limit"])))
    for workload in WORKLOADS:
        for run in results.pieces.get(f"{workload}, 0 workers", {}).get("runs", []):
            if run["contender"] in ("ours", "ours_streamed") and "error" not in run:
                lines.append(f"| {workload}, {NAMES[run['contender']]}: first batch, s | below {FIRST_BATCH_S} | {run['first_s']:.3f} | "
                             f"{'yes' if run['first_s'] < FIRST_BATCH_S else 'MISSED'} |")  # fmt: skip
    for workload, stored in results.stored.items():
        for form in ("plain", "compressed"):
            rivals = [found[f"{form}_nbytes"] for contender, found in stored.items() if contender != "ours"]
            if rivals and "ours" in stored:
                share = stored["ours"][f"{form}_nbytes"] / min(rivals)
                lines.append(f"| {workload}, {form}: bytes on disk of the smallest rival's | at most {MAX_OF_SMALLEST} | {share:.3f} | "
                             f"{'yes' if share <= MAX_OF_SMALLEST else 'MISSED'} |")  # fmt: skip
    return lines


def _goal(what: str, at_least: float, found: float) -> str:
    return f"| {what} | at least {at_least} | {found:.2f} | {'yes' if found >= at_least else 'MISSED'} |"


def sizes(results: Results) -> list[str]:
    """Return the bytes on disk, plain and compressed."""
    names = [name for name in NAMES if any(name in stored for stored in results.stored.values())]
    lines = ["", "MB on disk, plain and compressed (zstd; WebDataset gzip, HF Parquet with zstd):", "",
             "| | " + " | ".join(NAMES[name] if name != "hf_arrow" else "HF datasets" for name in names) + " |", "|---|" + "--:|" * len(names)]  # fmt: skip
    for workload, stored in results.stored.items():
        cells = [f"{found['plain_nbytes'] / 1e6:.2f}, {found['compressed_nbytes'] / 1e6:.2f}" if (found := stored.get(name)) else "failed" for name in names]
        lines.append(f"| {workload} | {' | '.join(cells)} |")
    return lines


def tables(results: Results) -> list[str]:
    lines = []
    for workload in dict.fromkeys(piece["workload"] for piece in results.pieces.values()):
        pieces = [piece for piece in results.pieces.values() if piece["workload"] == workload]
        lines += ["", f"**{workload}**: {pieces[0]['num_samples']:,} samples, {WORKLOADS[workload].delivers}", "",
                  "| | workers | samples/s | x best rival | of the limit | first batch, s | CPU, us a sample | memory, MB |", "|---|" + "--:|" * 7]  # fmt: skip
        for piece in sorted(pieces, key=lambda piece: (piece["num_workers"] is None, piece["num_workers"])):
            lines += [_row(run, piece) for run in sorted(piece["runs"], key=lambda run: list(NAMES).index(run["contender"]))]
    return lines


def _row(run: dict, piece: dict) -> str:
    workers = "S3" if piece["num_workers"] is None else piece["num_workers"]
    if "error" in run:
        return f"| {NAMES[run['contender']]} | {workers} | failed: {run['error'].replace('|', '/')} | | | | | |"
    figures, rival = Figures.of(run), best_rival(piece["runs"])
    limit = next((other for other in piece["runs"] if other["contender"] == "limit" and is_valid(other)), None)
    note = "" if run["is_exact"] else " (not the samples written)"
    of_rival, of_limit = (f"{ratio(run, other):.2f}" if other else "" for other in (rival, limit))
    first = "" if run["contender"] == "limit" else f"{figures.first_s:.3f}"
    return (f"| {NAMES[run['contender']]} | {workers} | {figures.samples_per_s:,.0f} ± {figures.spread:.0%}{note} | {of_rival} | {of_limit} | "
            f"{first} | {figures.cpu_us:.1f} | {figures.memory_nbytes / 1e6:,.0f} |")  # fmt: skip


def draw(results: Results, path) -> None:
    """Draw samples/s without workers, a panel a workload, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pieces = [piece for piece in results.pieces.values() if piece["num_workers"] == 0]
    columns = max(1, (len(pieces) + 1) // 2)
    figure, axes = pyplot.subplots(2, columns, figsize=(4.4 * columns, 6), squeeze=False, layout="constrained")
    for axis, piece in zip(axes.flat, pieces):
        runs = sorted((run for run in piece["runs"] if "error" not in run), key=lambda run: -list(NAMES).index(run["contender"]))
        colours = ["#3b6fd4" if run["contender"].startswith("ours") else "#c9ced8" if run["contender"] == "limit" else "#8a94a6" for run in runs]
        speeds = [Figures.of(run).samples_per_s for run in runs]
        bars = axis.barh([NAMES[run["contender"]] for run in runs], speeds, color=colours, log=True)
        axis.xaxis.set_minor_formatter("")  # where all lie within a decade, labels of minor ticks would lie on one another
        axis.bar_label(bars, [f" {speed:,.0f}" for speed in speeds], fontsize=8)
        axis.margins(x=0.25)
        axis.set_title(f"{piece['workload']}, samples/s", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in list(axes.flat)[len(pieces) :]:
        axis.set_visible(False)
    figure.savefig(path, dpi=110)
