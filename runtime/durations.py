"""Durations as people write them: a number with a unit. What an operator reads and writes goes through here."""

from __future__ import annotations

import math
import re
from datetime import timedelta

LONGEST = timedelta(days=36_525)
"""A hundred years: longer is a mistake, or `never`."""

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(value: object) -> object:
    """A duration as seconds: a bare number, or one with ms, s, m, h or d."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", value.strip())
    if match is None:
        raise ValueError("is not a duration; write seconds, or a number with ms, s, m, h or d (15, 500ms, 8d)")
    return float(match[1]) * UNITS[match[2] or "s"]


def age(value: object) -> object:
    """A duration of at most a hundred years, or `never`."""
    if isinstance(value, str) and value.strip().lower() == "never":
        return math.inf
    found = seconds(value)
    if isinstance(found, float) and found > LONGEST.total_seconds():
        raise ValueError("is longer than a hundred years; write never")
    return found


def written(value: float) -> str:
    """Seconds as a setting would be written."""
    if value == math.inf:
        return "never"
    days = value / UNITS["d"]
    return f"{days:g}d" if days >= 1 and days.is_integer() else f"{value:g}s"


def span(value: object) -> timedelta:
    """A duration that names its unit, as TOML would otherwise have numbers of which nobody knows what they count."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('is no time; write a number with ms, s, m, h or d, in quotes ("500ms", "90s", "2m", "5d")')
    found = float(match[1]) * UNITS[match[2]]
    if found > LONGEST.total_seconds():
        raise ValueError("is longer than a hundred years; write less")
    return timedelta(seconds=found)


def named(value: timedelta) -> str:
    """A duration in the largest unit of which it is a whole number, as `span` reads it."""
    unit = next((unit for unit in ("d", "h", "m", "s") if value and not value % timedelta(seconds=UNITS[unit])), "ms")
    return f"{value / timedelta(seconds=UNITS[unit]):.12g}{unit}" if value else "0s"
