"""How a figure is laid out: for a file, for a wide page, and for a phone; and names of lines at their ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation, blended_transform_factory

from winticket.report.ink import DARK, LIGHT, Ink

WIDE, NARROW = 7.6, 3.9
"""Inches. Lettering has 9 points or more, so that it is legible on a page of 900 and of 350 pixels."""
LETTER = 0.072
"""Inches of a letter of the labels at the lines' ends, on average."""
LABEL_SHARE, BESIDE_SEVERAL = 0.4, 0.25
"""Most of a figure's width that labels at the lines' ends take, beside one panel and beside several in a row."""
GAP = 12.5
"""Points between two labels, from line to line."""
_LEFT, _BOTTOM, _RIGHT = 0.78, 0.78, 0.16
WIDER_LEFT = 0.98
"""Inches on the left of axes with longer numbers than percentages."""
_LINE, _HEAD = 0.235, 0.2
_BESIDE = 0.12
"""Inches between a line's end and its label, beside the room on the right."""


@dataclass(frozen=True)
class Layout:
    """How a figure is laid out.

    ink     colours, for white paper or a dark page
    narrow  for a phone: panels stand below each other, and there are fewer ticks
    titled  with title and subtitle in the picture, as in files; a page has both as text
    """

    ink: Ink = LIGHT
    narrow: bool = False
    titled: bool = True

    @property
    def width(self) -> float:
        """Inches."""
        return NARROW if self.narrow else WIDE


FILE, DARK_FILE = Layout(), Layout(DARK)
ON_PAGE, ON_PHONE = Layout(titled=False), Layout(narrow=True, titled=False)


def canvas(
    title: str,
    subtitle: str,
    layout: Layout,
    *,
    panels: int = 1,
    across: int = 1,
    labels: Sequence[str] = (),
    share: bool = True,
    height: float | None = None,
    left: float | None = None,
    below: float = _BOTTOM,
) -> tuple[Figure, list[Axes]]:
    """Return an empty figure and its axes, row by row: `across` of them in a row, but one in a narrow figure.

    `labels` are those that will stand at the right ends of lines, where `end_labels` shortens those that
    are too long. With `share`, all axes have the same scales. `height` is that of one panel, `left` the room on its
    left, and `below` that under the last row, in inches.
    """
    across, left = 1 if layout.narrow else across, _LEFT if left is None else left
    down = -(-panels // across)
    each = height or ((2.3 if panels > 1 else 2.5) if layout.narrow else (2.2 if down > 1 else 3.3))
    longest = max((len(line) for label in labels for line in label.split("\n")), default=0)
    right = _RIGHT + (
        _BESIDE + LETTER * min(longest, letters_beside(layout.width, across=across)) if labels else 0.0
    )
    head = _HEAD + (0.14 if panels > 1 else 0.0)
    if layout.titled:
        head += 0.3 + _LINE * (1 + title.count("\n"))
    between = 0.38 if share else 0.95  # with an axis of its own below each panel
    whole = head + down * each + (down - 1) * between + below
    figure = Figure(figsize=(layout.width, whole))
    inner = layout.width - left - right
    gap = 0.3 if share else left
    wide = (inner - (across - 1) * gap) / across
    figure.subplots_adjust(
        left=left / layout.width,
        right=1 - right / layout.width,
        bottom=below / whole,
        top=1 - head / whole,
        wspace=gap / wide,
        hspace=between / each,
    )
    if layout.titled:
        write_head(figure, title, subtitle, ink=layout.ink)
    axes: list[Axes] = []
    for at in range(panels):
        with_first = axes[0] if axes and share else None
        axes.append(figure.add_subplot(down, across, at + 1, sharex=with_first, sharey=with_first))
        if share:
            axes[at].tick_params(labelleft=at % across == 0, labelbottom=at + across >= panels)
    return figure, axes


def write_head(figure: Figure, title: str, subtitle: str, *, ink: Ink) -> None:
    """Write the title and the subtitle at the top of a figure."""
    width, height = figure.get_size_inches()
    at = 0.15 / width
    figure.text(
        at,
        1 - 0.12 / height,
        title,
        ha="left",
        va="top",
        fontsize=12.5,
        fontweight="bold",
        linespacing=1.25,
    )
    below = 0.12 + _LINE * (1 + title.count("\n")) + 0.02
    figure.text(at, 1 - below / height, subtitle, ha="left", va="top", fontsize=9, color=ink.quiet)


@dataclass(frozen=True)
class Label:
    """A name at the right end of a line: where the line ends, in data, the name, and its colour."""

    y: float
    text: str
    color: str


def end_labels(axes: Axes, labels: Sequence[Label]) -> None:
    """Write names to the right of the axes, each as near to its line's end as the others allow.

    Limits and scales of the axes have to be set before.
    """
    shown = [label for label in labels if np.isfinite(label.y)]
    if not shown:
        return
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    room = (1 - axes.get_position().x1) * figure.get_size_inches()[0]
    texts = shortened([label.text for label in shown], _letters(room))
    points = axes.get_position().height * figure.get_size_inches()[1] * 72
    low, high = (axes.transData.transform((1.0, y))[1] for y in axes.get_ylim())
    wanted = [(axes.transData.transform((1.0, label.y))[1] - low) / (high - low) for label in shown]
    deepest = max(text.count("\n") for text in texts)
    gap = GAP * (1 + 0.85 * deepest)
    placed = parted([points * min(max(at, 0.0), 1.0) for at in wanted], gap=gap, most=points)
    for label, text, at, start in zip(shown, texts, placed, wanted, strict=True):
        beside: Any = blended_transform_factory(axes.transAxes, axes.transAxes)
        moved = beside + ScaledTranslation(11 / 72, 0, figure.dpi_scale_trans)
        axes.text(
            1.0, at / points, text, transform=moved, color=label.color, va="center", ha="left", fontsize=9
        )  # fmt: skip
        if 0 <= start <= 1:
            nine = 9 / 72 / (axes.get_position().width * figure.get_size_inches()[0])
            axes.plot(
                [1.0, 1.0 + nine], [start, at / points], transform=axes.transAxes, color=label.color, linewidth=0.7,
                clip_on=False,
            )  # fmt: skip


def letters_beside(width: float, *, across: int = 1) -> int:
    """How many letters a line of a label has at most, in a figure of `width` inches with `across` panels in a row.

    >>> [letters_beside(width) for width in (NARROW, WIDE)]
    [17, 38]
    """
    return _letters((LABEL_SHARE if across == 1 else BESIDE_SEVERAL) * width)


def _letters(room: float) -> int:
    """How many letters there are room for in so many inches on the right of the axes; 3 at least, as two and a …."""
    return max(3, int((room - _RIGHT - _BESIDE) / LETTER + 1e-6))


def shortened(names: Sequence[str], letters: int) -> list[str]:
    """The names, each line cut to at most `letters` (3 or more), with … in the place of what is left out.

    The middle is left out, or another part if the names would be the same without it.

    >>> shortened(["a-run-with-a-long-name", "short"], 9)
    ['a-ru…name', 'short']
    >>> shortened(["encoder.0.attention.out_proj", "encoder.1.attention.out_proj"], 12)
    ['encoder.0…oj', 'encoder.1…oj']
    """
    heads = sorted(range(letters), key=lambda head: abs(2 * head - letters + 1))
    ways = [(head, letters - 1 - head, 0) for head in heads]
    ways += [(0, 0, start) for start in range(1, max((len(name) for name in names), default=0) - letters + 2)]
    tried = ([_cut(name, letters, *way) for name in names] for way in ways)
    return max(tried, key=lambda made: len(set(made)))


def _cut(name: str, letters: int, head: int, tail: int, start: int) -> str:
    """Each line by its first `head` and last `tail` letters, or by those from `start` on."""
    lines = []
    for line in name.split("\n"):
        if len(line) <= letters:
            lines.append(line)
        elif start:
            lines.append(f"…{line[start : start + letters - 2]}…")
        else:
            lines.append(f"{line[:head]}…{line[len(line) - tail :]}")
    return "\n".join(lines)


def parted(wanted: Sequence[float], *, gap: float, most: float) -> list[float]:
    """Places from 0 to `most`, in the order of `wanted` and near them, with at least `gap` between two of them.

    If there is no room for that, they are spread evenly.

    >>> parted([10, 12, 50], gap=10, most=100)
    [6.0, 16.0, 50.0]
    >>> parted([0, 0], gap=10, most=100)
    [0.0, 10.0]
    """
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    gap = min(gap, most / max(len(wanted) - 1, 1))
    groups: list[tuple[float, int]] = []
    for at in order:
        centre, count = float(wanted[at]), 1
        centre = _inside(centre, count, gap, most)
        # Groups that touch become one, around the mean of what its members want.
        while groups and groups[-1][0] + gap * (groups[-1][1] - 1) / 2 + gap > centre - gap * (count - 1) / 2:
            before, many = groups.pop()
            centre = (before * many + centre * count) / (many + count)
            count += many
            centre = _inside(centre, count, gap, most)
        groups.append((centre, count))
    places = [centre + gap * (at - (count - 1) / 2) for centre, count in groups for at in range(count)]
    result = [0.0] * len(wanted)
    for at, place in zip(order, places, strict=True):
        result[at] = place
    return result


def _inside(centre: float, count: int, gap: float, most: float) -> float:
    half = gap * (count - 1) / 2
    return min(max(centre, half), most - half)
