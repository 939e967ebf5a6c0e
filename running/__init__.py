"""Time, chance and tasks: the one seam through which everything above the pure core sleeps, draws and starts work.

Knows nothing of sagas, databases or brokers. The process uses `AsyncioRunner`; a simulation passes its own `Runner`
and thereby owns every clock reading, every random choice and the order in which tasks run.
"""

from running.runner import AsyncioRunner, Runner, happens

__all__ = ["AsyncioRunner", "Runner", "happens"]
