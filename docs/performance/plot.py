#!/usr/bin/env python3
"""Draws the plots of docs/performance from what `cargo bench --bench ratios -- --write` left in results/.

Run: python3 docs/performance/plot.py. Needs nothing but Python's standard library.
"""

import math
from collections import defaultdict
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
WIDTH, HEIGHT = 860, 460
LEFT, RIGHT, TOP, BOTTOM = 80, 250, 56, 78
COLOURS = ["#1b6ca8", "#c8553d", "#2f855a", "#7a4fa3", "#8a6d1d"]
FONT = 'font-family="Helvetica, Arial, sans-serif"'


def read():
    """Of each plot its machine, and of each series its points: x, ours, limit."""
    plots, machines = defaultdict(lambda: defaultdict(list)), {}
    for path in sorted((HERE / "results").glob("*.tsv")):
        machine = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            kind, *cells = line.split("\t")
            if kind == "machine":
                machine = cells[0]
            elif kind == "point":
                plot, series, x, ours, limit = cells
                plots[plot][series].append((float(x), float(ours), float(limit)))
                machines[plot] = machine
    return plots, machines


def time(nanos):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanos >= size * 0.9999:
            return f"{nanos / size:g} {unit}"
    return f"{nanos:g} ns"


def size(count):
    for unit, of in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= of:
            return f"{count / of:g} {unit}"
    return f"{count:g} B"


def number(count):
    return f"{count:,.0f}"


def plain(value):
    return f"{value:g}"


class Axis:
    """From values to places, in equal steps or in equal factors."""

    def __init__(self, values, start, end, log, zero=False):
        low, high = min(values), max(values)
        self.log = log
        if log:
            step = 10
            low = step ** math.floor(math.log(low, step) + 1e-9)
            high = step ** math.ceil(math.log(high, step) - 1e-9)
        elif zero:
            low, high = 0, high * 1.08
        self.low, self.high, self.start, self.end = low, high, start, end

    def place(self, value):
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self):
        if self.log:
            powers = range(round(math.log10(self.low)), round(math.log10(self.high)) + 1)
            return [10.0**power for power in powers]
        rough = (self.high - self.low) / 5
        step = 10 ** math.floor(math.log10(rough))
        step *= next(factor for factor in (1, 2, 5, 10) if step * factor >= rough)
        return [self.low + step * n for n in range(int((self.high - self.low) / step + 1e-9) + 1)]


def draw(name, title, machine, lines, x_label, y_label, x_text, y_text, x_log, y_log, x_ticks=None):
    """`lines`: label, colour, whether dashed, points."""
    xs = [x for *_, points in lines for x, _ in points]
    ys = [y for *_, points in lines for _, y in points]
    across = Axis(xs, LEFT, WIDTH - RIGHT, False)
    across.log, across.low, across.high = x_log, min(xs), max(xs)
    up = Axis(ys, HEIGHT - BOTTOM, TOP, y_log, zero=True)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]

    def text(x, y, what, anchor="middle", of=13, colour="#222222", more=""):
        out.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{of}" fill="{colour}" {FONT} {more}>'
            f"{escape(what)}</text>"
        )

    text(LEFT, 28, title, "start", 17)
    text(LEFT, HEIGHT - 12, machine, "start", 11, "#666666")
    middle = (TOP + HEIGHT - BOTTOM) / 2
    text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 36, x_label)
    text(20, middle, y_label, more=f'transform="rotate(-90 20 {middle:.1f})"')
    for tick in up.ticks():
        y = up.place(tick)
        out.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        text(LEFT - 8, y + 4, y_text(tick), "end", 12)
    for tick in x_ticks or sorted(set(xs)):
        x = across.place(tick)
        out.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eeeeee"/>')
        text(x, HEIGHT - BOTTOM + 18, x_text(tick), of=12)
    out.append(f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="#444444"/>')
    for at, (label, colour, dashed, points) in enumerate(lines):
        way = "L".join(f"{across.place(x):.1f} {up.place(y):.1f}" for x, y in points)
        dash = ' stroke-dasharray="6 5"' if dashed else ""
        out.append(f'<path d="M{way}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        for x, y in points:
            fill = "#ffffff" if dashed else colour
            out.append(
                f'<circle cx="{across.place(x):.1f}" cy="{up.place(y):.1f}" r="3.2" fill="{fill}" stroke="{colour}"/>'
            )
        y = TOP + 8 + 22 * at
        x = WIDTH - RIGHT + 22
        out.append(f'<path d="M{x} {y}h26" stroke="{colour}" stroke-width="2"{dash}/>')
        text(x + 34, y + 4, label, "start", 12)
    out.append("</svg>\n")
    (HERE / f"{name}.svg").write_text("\n".join(out), encoding="utf-8")
    print(f"{name}.svg")


def with_limits(plot, limits):
    """The vault's curves, and dashed in the same colour what each is beside."""
    lines = []
    for colour, (series, points) in zip(COLOURS, plot.items()):
        lines.append((series, colour, False, [(x, ours) for x, ours, _ in points]))
        if series in limits:
            lines.append((limits[series], colour, True, [(x, limit) for x, _, limit in points]))
    return lines


def main():
    plots, machines = read()
    if "size" in plots:
        lines = with_limits(plots["size"], {"seal": "its primitives, bare", "open": "its primitives, bare"})
        ticks = [16, 256, 4096, 65536, 1 << 20]
        draw("size", "Sealing and opening by size, 2 lockboxes", machines["size"], lines,
             "size of the value", "time", size, time, True, True, ticks)
    if "lockboxes" in plots:
        lines = with_limits(plots["lockboxes"], {"seal": "its primitives, bare", "open": "its primitives, bare"})
        draw("lockboxes", "Sealing and opening 200 B by lockboxes", machines["lockboxes"], lines,
             "lockboxes", "time", plain, time, False, False)
    if "threads" in plots:
        plot = plots["threads"]
        lines = [
            (series, colour, False, [(x, limit / ours) for x, ours, limit in points])
            for colour, (series, points) in zip(COLOURS, plot.items())
        ]
        most = max(x for points in plot.values() for x, *_ in points)
        lines.append(("as many times as threads", "#888888", True, [(1, 1), (most, most)]))
        draw("threads", "Calls a second by threads, beside one thread", machines["threads"], lines,
             "threads on the same handles", "times one thread", plain, plain, False, False)
    if "subjects" in plots:
        limits = {
            "unlock, cold": "one bare read of its rows",
            "forget and shred": "wrapping a flat table anew",
        }
        draw("subjects", "By number of subjects, on redb, durable", machines["subjects"],
             with_limits(plots["subjects"], limits), "subjects", "time", number, time, True, True)


if __name__ == "__main__":
    main()
