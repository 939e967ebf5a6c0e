"""What those who repair by hand have in common: they act in a process of their own, and have patience with trouble."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from handlers.saga_types import SagaType
from messages.errors import Trouble
from outbox.interface import Storage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from handlers.work import Definitions
    from messages.codec import Limits
    from running import Runner

S = TypeVar("S", bound=Storage)
T = TypeVar("T")

_TRIES = 5


class Repair(Generic[S]):
    """Whatever decides about instances on an operator's behalf."""

    def __init__(
        self,
        sagas: Mapping[str, Definitions],
        *,
        namespace: str,
        storage: S,
        runner: Runner,
        report: Callable[[object], None],
        limits: Limits,
    ) -> None:
        self._sagas = {name: SagaType(definitions, namespace) for name, definitions in sagas.items()}
        self._storage = storage
        self._runner = runner
        self._report = report
        self._limits = limits


async def tried(runner: Runner, attempt: Callable[[], Awaitable[T]]) -> T:
    """What an attempt comes to, with patience for a database that is busy; each has to see what earlier ones did.

    Raises:
        Trouble: it lasts. Whether it was done is not known; asking again under the same request id is safe.
    """
    tries = 0
    while True:
        try:
            return await attempt()
        except Trouble:
            tries += 1
            if tries == _TRIES:
                raise
        await runner.sleep(0.1 * 2**tries)
