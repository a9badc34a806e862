"""Small plots as SVG text: bars, and the indices of a sparse set along its dimensions."""

from __future__ import annotations

from html import escape

import numpy as np

WIDTH, HEIGHT, AXIS = 420, 120, 18
SET_WIDTH, SET_HEIGHT = 420, 26
MAX_MARKS = 2000  # of a set; a screen has no more columns


def bars(labels: list[str], counts: list[int], title: str) -> str:
    """Return bars from left to right; each tells its label and count when pointed at."""
    if not counts:
        return ""
    width, top = WIDTH / len(counts), max(counts) or 1
    drawn = []
    for place, (label, count) in enumerate(zip(labels, counts, strict=True)):
        height = (HEIGHT - AXIS) * count / top
        drawn.append(f'<rect class="bar" x="{place * width + 0.5:.2f}" y="{HEIGHT - AXIS - height:.2f}" width="{max(width - 1, 0.5):.2f}" '
                     f'height="{height:.2f}"><title>{escape(label)}: {count:,}</title></rect>')  # fmt: skip
    middle = len(labels) // 2
    shown = {len(labels) - 1: "end", 0: "start"} | ({middle: "middle"} if len(labels) > 4 else {})
    ends = "".join(
        f'<text x="{ {"start": 0, "middle": (place + 0.5) * width, "end": WIDTH}[anchor]:.0f}" y="{HEIGHT - 4}" text-anchor="{anchor}">{escape(labels[place][:24])}</text>'
        for place, anchor in shown.items())  # fmt: skip
    return (f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">'
            f'<line class="axis" x1="0" y1="{HEIGHT - AXIS}" x2="{WIDTH}" y2="{HEIGHT - AXIS}"/>{"".join(drawn)}{ends}</svg>')  # fmt: skip


def index_set(indices: np.ndarray, values: np.ndarray | None, dim: int) -> str:
    """Return the indices of a set as marks along ``[0, dim)``, as high as their values."""
    heights = np.full(len(indices), 1.0)
    if values is not None and len(values):
        magnitude = np.abs(np.nan_to_num(values.astype(np.float64)))
        heights = 0.15 + 0.85 * magnitude / (magnitude.max() or 1.0)
    marks = []
    for place in range(0, len(indices), max(1, -(-len(indices) // MAX_MARKS))):
        height = (SET_HEIGHT - 2) * heights[place]
        label = str(int(indices[place])) if values is None else f"{int(indices[place])}: {values[place]:g}"
        marks.append(f'<rect class="bar" x="{int(indices[place]) / dim * (SET_WIDTH - 2):.2f}" y="{SET_HEIGHT - 1 - height:.2f}" width="1.6" '
                     f'height="{height:.2f}"><title>{label}</title></rect>')  # fmt: skip
    return (f'<svg viewBox="0 0 {SET_WIDTH} {SET_HEIGHT}" width="{SET_WIDTH}" height="{SET_HEIGHT}" role="img" aria-label="{len(indices)} of {dim} indices">'
            f'<line class="axis" x1="0" y1="{SET_HEIGHT - 1}" x2="{SET_WIDTH}" y2="{SET_HEIGHT - 1}"/>{"".join(marks)}</svg>')  # fmt: skip
