"""`antiphon definitions migrate` with batches as small as one asks for.

    python -m tests.crash.moving SIZE ARGUMENTS...

So that the crash tests need few instances for several commits.
"""

from __future__ import annotations

import sys

from runtime import cli
from runtime.commands import migrate_instances


def main() -> None:
    """The entry point."""
    migrate_instances.BATCH = int(sys.argv.pop(1))
    cli.main()


if __name__ == "__main__":
    main()
