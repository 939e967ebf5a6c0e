"""Become another program, as another user, that the kernel stops when the parent dies: `leash.py SIGNAL UID GID CMD…`.

However a test run ends, by Ctrl-C, `kill -9` or a crash of the interpreter, no server of it stays behind. Only the
standard library is used and nothing of ours is imported, so that it starts quickly and under any user.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def _give_up_rights(uid: int, gid: int) -> None:
    if os.geteuid() == 0 and uid != 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)


def _die_with_parent(signal_number: int) -> None:
    """Linux only; elsewhere the orderly ways out have to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def main(argv: list[str]) -> None:
    """Never returns: the process becomes the command."""
    signal_number, uid, gid, parent = (int(word) for word in argv[:4])
    _give_up_rights(uid, gid)  # before the leash: changing the user takes it off again
    _die_with_parent(signal_number)
    if os.getppid() != parent:
        raise SystemExit(1)  # the parent died before the leash was on
    os.execvp(argv[4], argv[4:])  # noqa: S606 - becoming the given program is what this file is for


if __name__ == "__main__":
    main(sys.argv[1:])
