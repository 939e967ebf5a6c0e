"""What is done with messages: the path of a batch, timers, operations, and participants.

Writers of participants need `Participant` and `Context`.
"""

from handlers.participant import Participant
from outbox.participant_store import Context

__all__ = ["Context", "Participant"]
