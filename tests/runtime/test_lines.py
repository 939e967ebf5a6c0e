"""Several processes write to one pipe, and every line comes out whole."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
WRITER = r"""
import sys
from runtime.lines import share_output
share_output()
for number in range(100):
    sys.stdout.write(sys.argv[1] * (20_000 if number % 2 else 20) + "\n")  # at once, as a logger does
    print(sys.argv[1] * 20, file=sys.stderr)
"""


def test_no_line_is_torn_however_long_it_is_and_however_far_its_reader_is_behind() -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)  # always full, with a reader that is always behind
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, letter], cwd=HOME, stdout=write, stderr=write)
        for letter in "abc"
    ]
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as stream:
        lines = stream.read().splitlines()
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert sorted(lines) == sorted([c * 20 for c in "abc"] * 150 + [c * 20_000 for c in "abc"] * 50)
