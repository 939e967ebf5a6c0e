"""`python -m runtime`: the command line, where the console script is not installed."""

from runtime.cli import main

main()
