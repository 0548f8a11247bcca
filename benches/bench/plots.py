"""Plots of the raw numbers, as SVG: bars of each row on a logarithmic scale, and curves of growth."""

import html
import json
import math
import pathlib

from .report import LESS_IS_BETTER, OURS, median, number

# Each has its colour in every plot; told apart by their order and their names as well.
COLOURS = {
    OURS: "#d97706", "comb, S3": "#f59e0b", "comb, S3 20 ms": "#fcd34d", "comb, copied into the mount": "#fcd34d",
    "ext4": "#1f2937", "btrfs": "#2563eb", "gocryptfs": "#0891b2", "cryfs": "#67e8f9", "s3ql": "#7c3aed",
    "null": "#d1d5db", "null+sync": "#9ca3af", "ram": "#6b7280", "restic": "#65a30d", "rustic": "#a3e635", "borg": "#be185d", "copy": "#9ca3af",
}  # fmt: skip
OTHER = "#64748b"
FONT = 'font-family="system-ui, sans-serif" font-size="12"'
BAR, GAP, LEFT, WIDTH, RIGHT = 13, 16, 330, 520, 110


def text(x, y, words, anchor="start", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{html.escape(str(words))}</text>'


def frame(width, height, title, parts):
    """A page of its own, readable on light and on dark."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" {FONT} fill="#111827">'
        f'<title>{html.escape(title)}</title><rect width="{width}" height="{height}" fill="#ffffff"/>'
        f'{text(16, 24, title, more="font-weight=" + chr(34) + "600" + chr(34) + " font-size=" + chr(34) + "15" + chr(34))}'
        + "".join(parts) + "</svg>\n"
    )  # fmt: skip


def legend(names, top, left=16):
    parts = []
    for name in names:
        parts.append(f'<rect x="{left}" y="{top - 10}" width="12" height="12" fill="{COLOURS.get(name, OTHER)}"/>')
        parts.append(text(left + 17, top, name))
        left += 35 + 7.5 * len(name)
    return parts


def bars(title, rows, names):
    """Bars of each row; each row has a logarithmic scale of its own, from a tenth of its smallest value to its largest."""
    parts, y = [*legend(names, 50), text(16, 68, "Bars are logarithmic.", more='fill="#6b7280" font-size="10"')], 84
    for row in rows:
        values = {one: median(row["values"][one]) for one in names if row["values"].get(one)}
        high = max(values.values(), default=0)
        if high <= 0:
            continue
        # A bar of nothing has no length.
        low = min(value for value in values.values() if value > 0) / 10
        better = "less" if row.get("less_is_better", row["unit"] in LESS_IS_BETTER) else "more"
        middle = y + len(values) * BAR / 2
        parts.append(text(LEFT - 10, middle, row["row"], "end"))
        parts.append(text(LEFT - 10, middle + 13, f"{row['unit']}, {better} is better", "end", 'fill="#6b7280" font-size="10"'))
        for one, value in values.items():
            length = WIDTH * math.log(max(value, low) / low) / math.log(high / low)
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 2}" fill="{COLOURS.get(one, OTHER)}"/>')
            parts.append(text(LEFT + length + 5, y + BAR - 4, f"{number(value)} {one}", more='font-size="10"'))
            y += BAR
        y += GAP
    return frame(LEFT + WIDTH + RIGHT, y + 8, title, parts)


def curves(title, unit, axis, series):
    """Lines of (x, y) points by name, both scales logarithmic."""
    names = list(series)
    width, height, left, top, bottom = 640, 380, 70, 70, 330
    points = [point for one in series.values() for point in one if point[1] > 0]
    if len({x for x, _ in points}) < 2:
        return None
    xs = (min(x for x, _ in points), max(x for x, _ in points))
    ys = [10 ** math.floor(math.log10(min(y for _, y in points))), 10 ** math.ceil(math.log10(max(y for _, y in points)))]
    if ys[0] == ys[1]:
        ys[1] *= 10
    at_x = lambda x: left + (width - left - 110) * math.log(x / xs[0]) / math.log(xs[1] / xs[0])  # noqa: E731
    at_y = lambda y: bottom - (bottom - top) * math.log(y / ys[0]) / math.log(ys[1] / ys[0])  # noqa: E731
    parts = legend(names, 50)
    tick = ys[0]
    while tick <= ys[1] * 1.001:
        parts.append(f'<line x1="{left}" x2="{width - 110}" y1="{at_y(tick):.1f}" y2="{at_y(tick):.1f}" stroke="#e5e7eb"/>')
        parts.append(text(left - 8, at_y(tick) + 4, f"{tick:g}", "end"))
        tick *= 10
    for x in sorted({x for x, _ in points}):
        parts.append(text(at_x(x), bottom + 18, f"{x:,}", "middle"))
    parts.append(text(left, height - 12, axis, more='fill="#6b7280"'))
    parts.append(text(16, top - 4, unit, more='fill="#6b7280"'))
    for name, line in series.items():
        line = [(at_x(x), at_y(y)) for x, y in sorted(line) if y > 0]
        if not line:
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS.get(name, OTHER)}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{COLOURS.get(name, OTHER)}"/>' for x, y in line]
        parts.append(text(line[-1][0] + 8, line[-1][1] + 4, name, more='font-size="11"'))
    return frame(width, height, title, parts)


def draw(path):
    """Draws what a file of raw numbers holds, beside it; returns the plots' paths."""
    path = pathlib.Path(path)
    result, drawn = json.loads(path.read_text(encoding="utf-8")), []

    def keep(name, picture):
        if picture:
            name = "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")
            plot = path.with_name(f"{path.stem}-{name}.svg")
            plot.write_text(picture, encoding="utf-8")
            drawn.append(plot)

    for table in result["tables"]:
        rows = table["rows"]
        if table.get("axis"):
            for row in rows:
                series = {one: points for one, points in row["points"].items() if points}
                keep(f"{table['title']} {row['row']}", curves(f"{row['row']} — {table['title']}", row["unit"], table["axis"], series))
            continue
        names = [one for one in table["subjects"] if any(row["values"].get(one) for row in rows)]
        compared = [row for row in rows if len([one for one in names if row["values"].get(one)]) > 1]
        if compared:
            keep(table["title"], bars(table["title"], compared, names))
    return drawn
