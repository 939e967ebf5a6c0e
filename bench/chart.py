"""The run as one picture: how many sagas a second each contender completed. Pure; the text is SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from bench.summary import PRODUCT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report import Conditions
    from bench.summary import Level, Summary

WIDTH, NAMES, RIGHT = 830, 320, 170
ROW, BAR, TOP = 30, 18, 58
OURS, OTHERS = "#1f6f5c", "#b9c4cf"


def chart(known: Conditions, summaries: Sequence[Summary]) -> str:
    """Bars for the most orders in flight, the fastest first, each with its rate and its idle latency."""
    bars = sorted(
        ((one, one.steady[-1]) for one in summaries if one.steady),
        key=lambda bar: bar[1].sagas_per_second.median,
        reverse=True,
    )
    if not bars:
        return _svg(TOP, [_text(16, 28, "nothing was measured", "title")])
    most = bars[0][1].sagas_per_second.highest
    head = [
        _text(16, 28, f"Completed sagas per second, {bars[0][1].in_flight} orders in flight", "title"),
        _text(16, 46, f"{known.processors} x {known.processor}, everything on this one machine; (idle p50)", "note"),
    ]
    drawn = [part for number, (one, level) in enumerate(bars) for part in _bar(TOP + number * ROW, one, level, most)]
    return _svg(TOP + len(bars) * ROW + 12, [*head, *drawn])


def _bar(top: int, one: Summary, level: Level, most: float) -> list[str]:
    rate = level.sagas_per_second
    scale = (WIDTH - NAMES - RIGHT) / most
    idle = f" ({one.idle_ms.p50:.0f} ms)" if one.idle_ms else ""
    middle = top + ROW // 2
    return [
        _text(NAMES - 10, middle + 4, one.title, "name"),
        f'<rect x="{NAMES}" y="{middle - BAR // 2}" width="{max(rate.median * scale, 1):.0f}" height="{BAR}" '
        f'fill="{OURS if one.contender == PRODUCT else OTHERS}"/>',
        f'<path d="M{NAMES + rate.lowest * scale:.0f} {middle}H{NAMES + rate.highest * scale:.0f}" stroke="#333"/>',
        _text(NAMES + round(rate.highest * scale) + 8, middle + 4, f"{rate.median:.0f}{idle}", "value"),
    ]


def _text(x: int, y: int, words: str, kind: str) -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(words)}</text>'


def _svg(height: int, parts: Sequence[str]) -> str:
    style = (
        "text{font:13px system-ui,sans-serif;fill:#222}.title{font-weight:600;font-size:15px}"
        ".note{fill:#666;font-size:11px}.name{text-anchor:end}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img"><style>{style}</style><rect width="{WIDTH}" height="{height}" fill="#fff"/>'
        + "".join(parts)
        + "</svg>\n"
    )
