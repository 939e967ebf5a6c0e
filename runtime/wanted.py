"""Which dead letters a command line asks for, in its own words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Ids, and filters as they were given; what is empty was not. `status` None is any."""

    ids: tuple[int, ...] = ()
    reason: str = ""
    error_class: str = ""
    name: str = ""
    consumer: str = ""
    saga: str = ""
    status: str | None = "open"
    since: str = ""
    until: str = ""

    @property
    def filters(self) -> tuple[str, ...]:
        """The filters as options, to be typed again."""
        given = {
            "--with-reason": self.reason,
            "--error-class": self.error_class,
            "--name": self.name,
            "--consumer": self.consumer,
            "--saga": self.saga,
            "--since": self.since,
            "--until": self.until,
        }
        return tuple(word for option, value in given.items() if value for word in (option, value))
