"""What the commands of the command line do, one module per command or group; `runtime.cli` is their face.

Imported only when the command runs, so that `antiphon --help` is quick. Each returns the process's exit code.
"""
