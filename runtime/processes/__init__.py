"""Several processes of one machine under one command: a parent that does no work, and the processes that do it."""
