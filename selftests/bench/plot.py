# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The ratios of the bench as a plot in SVG."""

import math

from report import GROUPS, NAMES, NO_RATIO

COLOURS = {"naive": "#b0b0b0", "unix": "#7aa6d6", "skmsg": "#d1603d", "direct": "#2e7d4f",
           "ring": "#c9b458", "memcpy": "#e3dcc0"}


class Plot:
    """Horizontal bars from the line "as fast as TCP", to the right faster, on a log scale."""

    WIDTH, LEFT, RIGHT, BAR, GAP = 900, 250, 60, 8, 7
    LOW, HIGH = -3, 9  # powers of two at both ends

    def __init__(self):
        self.parts = []
        self.y = 60

    def x(self, ratio):
        """Where a ratio lies."""
        power = max(self.LOW, min(self.HIGH, math.log2(ratio)))
        width = self.WIDTH - self.LEFT - self.RIGHT
        return self.LEFT + (power - self.LOW) / (self.HIGH - self.LOW) * width

    def text(self, x, y, what, size=11, anchor="start", weight="normal"):
        """A piece of text."""
        what = what.replace("&", "&amp;").replace("<", "&lt;")
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" '
                          f'text-anchor="{anchor}" font-weight="{weight}">{what}</text>')

    def bar(self, plane, ratio):
        """One bar with the quartiles as a thin line."""
        low, mid, high = ratio
        left, right = sorted((self.x(1), self.x(mid)))
        middle = self.y + self.BAR / 2
        width = max(right - left, 0.5)
        self.parts.append(f'<rect x="{left:.1f}" y="{self.y}" width="{width:.1f}" '
                          f'height="{self.BAR - 1}" fill="{COLOURS[plane]}"/>'
                          f'<path d="M{self.x(low):.1f} {middle}H{self.x(high):.1f}" '
                          f'stroke="#333"/>')
        beyond = self.x(max(mid, high, 1)) + 4
        self.text(beyond, self.y + self.BAR - 0.5, f"{mid:.2f}" if mid < 10 else f"{mid:.0f}", 8)
        self.y += self.BAR

    def row(self, row, summary):
        """All bars of one row."""
        bars = [p for p in row.planes if p in COLOURS and summary.get(p, {}).get("ratio")]
        if not bars:
            return
        self.text(self.LEFT - 8, self.y + len(bars) * self.BAR / 2 + 4, row.label, 11, "end")
        for plane in bars:
            self.bar(plane, summary[plane]["ratio"])
        self.y += self.GAP

    def legend(self, about, planes):
        """Title and colours."""
        self.text(20, 22, "Times faster than plain TCP on loopback", 15, weight="bold")
        where = f"{about['cpu']}, {about['cpus']} CPUs, Linux {about['kernel']}, {about['date']}"
        self.text(20, 40, where, 10)
        planes = [p for p in planes if p in COLOURS]
        x = self.WIDTH - 90 * len(planes)
        for plane in planes:
            self.parts.append(f'<rect x="{x}" y="13" width="10" height="10" '
                              f'fill="{COLOURS[plane]}"/>')
            self.text(x + 14, 22, NAMES[plane], 10)
            x += 90

    def grid(self, top):
        """Lines at the powers of two, behind the bars."""
        lines = []
        for power in range(self.LOW, self.HIGH + 1):
            x = self.x(2 ** power)
            colour = "#333" if power == 0 else "#ddd"
            lines.append(f'<path d="M{x:.1f} {top}V{self.y}" stroke="{colour}"/>')
            self.text(x, self.y + 14, f"{2 ** power:g}", 10, "middle")
        self.parts = lines + self.parts

    def render(self, results, planes, about):
        """The picture."""
        self.legend(about, planes)
        for group, (title, _) in GROUPS.items():
            rows = [r for r in results if r.row.group == group and group not in NO_RATIO]
            if rows:
                self.text(20, self.y + 12, title, 11, weight="bold")
                self.y += 20
            for result in rows:
                self.row(result.row, result.summary)
        self.grid(50)
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.WIDTH} {self.y + 24}" '
                f'font-family="sans-serif">\n'
                f'<!-- SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause -->\n'
                f'<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(self.parts) +
                "</svg>\n")
