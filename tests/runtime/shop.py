"""What a user might have in a module of their own: a saga of one step, and the participant that does it."""

SAGA = '''
"""One step."""
from messages import Command, Event
from sagas import Saga, start, step

class Asked(Event, name="tiny.Asked", version=1):
    order_id: str

class Do(Command, name="tiny.Do", version=1):
    order_id: str

class Done(Event, name="tiny.Done", version=1):
    order_id: str

class Tiny(Saga, key="order_id", version=1):
    order_id: str

    @start
    def asked(cls, event: Asked) -> "Tiny":
        return cls(order_id=event.order_id)

    @step(success=Done)
    def work(self) -> Do:
        return Do(order_id=self.order_id)
'''

PARTICIPANT = """
import asyncio
import sys
from handlers import Participant

worker = Participant("worker")

@worker.handles
async def do(command: Do) -> Done:
    if command.order_id == "hang":
        print('{"event": "handler.hangs"}', flush=True)
        await asyncio.Event().wait()
    if command.order_id == "leave":
        sys.exit("enough")
    return Done(order_id=command.order_id)
"""
