"""Exit codes: what a process tells whoever started it.

| code | meaning |
|---|---|
| 0 | done, or stopped with everything finished |
| 1 | the command failed, or was refused |
| 2 | the command line is wrong |
| 69 | the database or the broker was not there in time |
| 75 | not yet: the stop ran out of time (nothing is lost, start again), or a version is still needed |
| 78 | configuration: a setting, an address, a module, a schema that is behind |
| 141 | whoever read the output went away before its end, as `head` does; what was to be done is done |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from messages.errors import AntiphonError

OK = 0
FAILED = 1
USAGE = 2
UNAVAILABLE = 69
TRY_AGAIN = 75
CONFIGURATION = 78
READER_GONE = 141
"""What a shell makes of a program that ended by SIGPIPE, as other programs do: 128 and the number of the signal."""


def exit_code(error: AntiphonError) -> int:
    """The exit code of a process that ends with this error."""
    from messages.errors import ConfigurationError, Trouble  # the codes are needed before our packages can be trusted

    if isinstance(error, ConfigurationError):
        return CONFIGURATION
    return UNAVAILABLE if isinstance(error, Trouble) else FAILED
