"""What the suite is given to run against."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One server: how to reach it, and in words where it comes from."""

    url: str
    source: str
    management_url: str | None = None  # RabbitMQ's management API, where there is one
