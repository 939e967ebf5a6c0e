"""What the code at hand would make of everything that a database holds: findings, put together as they come.

A finding is what would break; a note is what people want to know besides. Either gathers whatever has the same cause,
with how much of it there is and a few examples, so that it takes no more memory for a million instances than for ten.
Opens nothing and changes nothing: it is handed what there is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from handlers.decoding import decode
from handlers.keeping import AWAITED, UNAWAITED, VERSION
from handlers.saga_types import SagaType
from messages import codec
from messages.errors import (
    CorrelationConflict,
    HandlerRaised,
    HeldTooLong,
    IdConflict,
    MessageError,
    MethodRaised,
    NotAwaited,
    OperationRefused,
    UnknownMessage,
)
from messages.printable import printable
from sagas import difference, prospect
from sagas.aliases import given
from sagas.instance import saga_id
from sagas.moving import move
from sagas.outcome import Arrived
from sagas.passage import passage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from handlers.decoding import Decoded
    from handlers.participant import Participant
    from handlers.work import Definitions
    from messages.codec import Limits
    from sagas.definition import Definition
    from sagas.instance import Instance
    from sagas.passage import Passage
    from storage.definitions import RecordedDefinition
    from storage.living import Kept

EXAMPLES = 5

_PARTICIPANT = "participant."
_READ = (MethodRaised, HandlerRaised, IdConflict, CorrelationConflict, HeldTooLong, NotAwaited)
_WAS_READ = {each.reason for each in _READ}
"""Why a message is dead-lettered that could be read."""

_BESIDE = (
    "keep version {version} beside the others until antiphon definitions drain {type} {version} says that it may go"
)
_ANEW = "take the change back, or make it version={next} and keep version {version} beside it"
_MEND = "mend the method; or make the change version={next} and keep version {version} beside it"
REMEDIES: Mapping[str, str] = {
    "version_missing": _BESIDE,
    "definition_refused": _ANEW,
    prospect.STATE: "give new fields a default, and let the others take what was stored; or make the change "
    "version={next} and keep version {version} beside it",
    prospect.STEP: _ANEW,
    prospect.CHOICE: _ANEW,
    prospect.TIMER: _ANEW,
    prospect.RAISES: _MEND,
    prospect.NEEDS_REPLY: "mend the undo; it must do with what is known before the reply of its step, because its "
    "participant finds the effect by the header compensates",
    prospect.UNDECIDED: _ANEW,
    "held_unreadable": "let the class of the message read what was sent: give new fields a default, keep its name",
    "held_fails": _MEND,
    "letter_unreadable": "let the class of the message read what was sent: give new fields a default, keep its name",
    "letter_fails": "antiphon dead show tells what is wrong with each; mend it, edit it, or discard it",
    "letter_replayable": "once this code runs: antiphon dead replay",
    "held_waits": "it goes on waiting for a process that knows its version",
    "parked_mended": "once this code runs: antiphon sagas retry, or replay the dead letter that parked it",
    "parked_still": "antiphon sagas show tells what raised; mend the method",
    "alias_shared": "once this code runs the first of them has it, and the others want somebody: see which is right",
    "migration_refused": "mend what @migrate says; see antiphon definitions migrate",
    "migration_leaves": _BESIDE,
    "migration_moves": "once this code runs: antiphon definitions migrate {type} {version}",
}
"""What to do, by what was found. Those from `letter_fails` on are notes."""

NOTES = frozenset(
    (
        "alias_shared",
        "letter_fails",
        "letter_replayable",
        "held_waits",
        "parked_mended",
        "parked_still",
        "migration_refused",
        "migration_leaves",
        "migration_moves",
    )
)


class _Fate(Enum):
    """What would become of a message that is kept."""

    UNKNOWN = auto()  # no saga of this type is known here
    UNREAD = auto()  # it cannot be read
    VERSION = auto()  # its instance is of a version that is not known here
    FAILS = auto()  # a method raises
    FITS = auto()


_HELD = {_Fate.UNKNOWN: "held_unreadable", _Fate.UNREAD: "held_unreadable", _Fate.FAILS: "held_fails"}
_LETTER = {
    _Fate.UNKNOWN: "letter_unreadable",
    _Fate.UNREAD: "letter_unreadable",
    _Fate.VERSION: "letter_fails",
    _Fate.FAILS: "letter_fails",
    _Fate.FITS: "letter_replayable",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What would become of a message, decided by which version, and why."""

    fate: _Fate
    version: int | None = None
    place: str = ""
    text: str
    error: MessageError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One of many: the id of an instance, a held message or a dead letter, and the business key where it has one."""

    id: str
    business_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """What findings have in common; `code` is a word of `REMEDIES`, `text` tells the first that was met."""

    code: str
    saga_type: str
    version: int | None = None
    place: str = ""
    text: str = field(compare=False)

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return REMEDIES[self.code].format(type=self.saga_type, version=self.version, next=(self.version or 0) + 1)


@dataclass(slots=True, kw_only=True)
class Finding:
    """A cause, and how much of what is stored has it."""

    cause: Cause
    amount: int = 0
    examples: list[Example] = field(default_factory=list)


class Inspection:
    """Looks at what is stored, batch by batch; `findings` and `notes` say what it came to, `checked` of how much."""

    def __init__(
        self,
        sagas: Mapping[str, Definitions],
        participants: Mapping[str, Participant],
        recorded: Mapping[tuple[str, int], RecordedDefinition],
        *,
        namespace: str,
        limits: Limits,
    ) -> None:
        """`recorded` are the definitions of the database: what has changed since under its version is found at once."""
        self._sagas = sagas
        self._read_by = {name: SagaType(versions, namespace).latest for name, versions in sagas.items()}
        self._participants = participants
        self._recorded = recorded
        self._namespace = namespace
        self._limits = limits
        self.checked = {"instances": 0, "timers": 0, "held": 0, "dead_letters": 0, "not_ours": 0}
        self._named: dict[tuple[str, str, str], str] = {}
        self._ways: dict[tuple[str, int], Passage] = {}
        self._refused = {(cause.saga_type, cause.version): cause for cause in self._refusals()}
        self._found = {cause: Finding(cause=cause) for cause in self._refused.values()}

    @property
    def findings(self) -> list[Finding]:
        """What would break, the most frequent first."""
        return self._sorted(notes=False)

    @property
    def notes(self) -> list[Finding]:
        """What else there is to know, likewise."""
        return self._sorted(notes=True)

    def instances(self, instances: Iterable[Instance], now: datetime) -> None:
        """Look at live instances."""
        for instance in instances:
            self._instance(instance, now)

    def held(self, messages: Iterable[Kept], now: datetime) -> None:
        """Look at held messages."""
        for message in messages:
            self._held(message, now)

    def letters(self, letters: Iterable[Kept], now: datetime) -> None:
        """Look at open dead letters; those that neither a saga nor a participant of this process took are not ours."""
        for letter in letters:
            self._letter(letter, now)

    # -- instances

    def _instance(self, instance: Instance, now: datetime) -> None:
        self.checked["instances"] += 1
        self.checked["timers"] += len(instance.timers)
        example = Example(id=str(instance.saga_id), business_key=instance.key)
        for cause in self._causes(instance, now):
            self._add(cause, example)

    def _causes(self, instance: Instance, now: datetime) -> Iterator[Cause]:
        saga_type, version = instance.saga_type, instance.version
        definition = self._sagas.get(saga_type, {}).get(version)
        if definition is None:
            text = self._missing(saga_type, version)
            yield Cause(code="version_missing", saga_type=saga_type, version=version, text=text)
            yield from self._after_migration(instance, now)
            return
        if (refused := self._refused.get((saga_type, version))) is not None:
            yield refused
        ahead = prospect.prospect(definition, instance, now)
        for flaw in ahead.flaws:
            yield Cause(code=flaw.code, saga_type=saga_type, version=version, place=flaw.place, text=flaw.text)
        yield from self._shared_aliases(definition, instance)
        if ahead.mended is not None:
            code, raised = "parked_mended" if ahead.mended else "parked_still", instance.attention["method_raised"]
            place, text = raised.partition(": ")[0], f"parked because of {raised}"
            yield Cause(code=code, saga_type=saga_type, version=version, place=place, text=text)

    def _shared_aliases(self, definition: Definition, instance: Instance) -> Iterator[Cause]:
        """What the instance would not get of the aliases that are new in its class, for another live one has it too."""
        recorded = self._recorded.get((definition.type, definition.version))
        known = recorded.document["shape"].get("aliases", ()) if recorded is not None else definition.aliases
        new = set(definition.aliases).difference(known)
        values, unfit = given(definition, instance) if new else ({}, {})
        for name in sorted(new & values.keys()):
            first = self._named.setdefault((definition.type, name, values[name]), instance.key)
            if first != instance.key:
                text = printable(f"its {name} {values[name]!r} is that of {first!r}, too")
                yield Cause(
                    code="alias_shared", saga_type=definition.type, version=definition.version, place=name, text=text
                )
        for name in sorted(new & unfit.keys()):
            text = f"its {name} is no key: {unfit[name]}"
            yield Cause(
                code="alias_shared", saga_type=definition.type, version=definition.version, place=f"{name}:", text=text
            )

    def _after_migration(self, instance: Instance, now: datetime) -> Iterator[Cause]:
        """What would become of an instance of a version that is not here, if it were moved to the one that is."""
        saga_type, version = instance.saga_type, instance.version
        latest, was = self._sagas.get(saga_type, {}), self._recorded.get((saga_type, version))
        definition = latest[max(latest)] if latest else None
        if definition is None or was is None or version not in definition.migrations:
            return
        try:
            way = self._ways.setdefault((saga_type, version), passage(version, was.document, definition))
        except OperationRefused as error:
            yield Cause(code="migration_refused", saga_type=saga_type, version=version, text=str(error))
            return
        found = move(way, instance, now, actor="", reason="")
        if isinstance(found, prospect.Flaw):
            text = f"{found.text}; so it would be left for now"
            yield Cause(code="migration_leaves", saga_type=saga_type, version=version, place=found.place, text=text)
        else:
            text = f"antiphon definitions migrate would move it to version {definition.version}"
            yield Cause(code="migration_moves", saga_type=saga_type, version=version, text=text)

    def _missing(self, saga_type: str, version: int) -> str:
        versions = self._sagas.get(saga_type)
        if versions is None:
            return f"no module in ANTIPHON_MODULES defines a saga {saga_type}"
        known = ", ".join(map(str, sorted(versions)))
        return f"{saga_type} is defined here in version {known}, not in version {version}"

    def _refusals(self) -> Iterator[Cause]:
        for saga_type, versions in self._sagas.items():
            for version, definition in versions.items():
                stored = self._recorded.get((saga_type, version))
                if stored is None or stored.digests == definition.digests:
                    continue
                changes = difference.difference(stored.document, definition.document).changes
                if refused := "; ".join(change.text for change in changes if change.refused):
                    text = f"antiphon run would not start: {refused}"
                    yield Cause(code="definition_refused", saga_type=saga_type, version=version, text=text)

    # -- messages

    def _held(self, message: Kept, now: datetime) -> None:
        self.checked["held"] += 1
        look = self._look(message, now)
        waits = look.fate is _Fate.VERSION or (message.reason == VERSION and isinstance(look.error, UnknownMessage))
        self._tell("held_waits" if waits else _HELD.get(look.fate), message, look)

    def _letter(self, letter: Kept, now: datetime) -> None:
        if letter.consumer.startswith(_PARTICIPANT):
            participant = self._participants.get(letter.consumer.removeprefix(_PARTICIPANT))
            look = None if participant is None else self._look_at_command(letter, participant)
        else:
            ours = letter.consumer in self._sagas or any(known == letter.consumer for known, _ in self._recorded)
            look = self._look(letter, now) if ours else None
        if look is None:
            self.checked["not_ours"] += 1
            return
        self.checked["dead_letters"] += 1
        hopeless = look.fate is _Fate.UNREAD and letter.reason not in _WAS_READ
        self._tell("letter_fails" if hopeless else _LETTER[look.fate], letter, look)

    def _tell(self, code: str | None, message: Kept, look: _Look) -> None:
        if code is None:
            return
        key = message.business_key or (message.instance.key if message.instance is not None else None)
        cause = Cause(
            code=code,
            saga_type=message.consumer,
            version=look.version,
            place=look.place,
            text=f"{message.name}: {look.text}",
        )
        self._add(cause, Example(id=str(message.number), business_key=key))

    def _look(self, message: Kept, now: datetime) -> _Look:
        """What becomes of a message that a saga is to apply."""
        latest = self._latest(message.consumer)
        if latest is None:
            return _Look(fate=_Fate.UNKNOWN, text=self._missing(message.consumer, 0))
        read = decode(message.raw, latest, self._limits)
        if read.error is not None:
            return _unread(read.error, latest.version)
        definition = self._definition(message, latest)
        if definition is None:
            return _Look(fate=_Fate.VERSION, text="it is for an instance whose version is not known here")
        if (failure := self._failure(definition, message, read, now)) is not None:
            place = failure.partition(": ")[0]
            return _Look(fate=_Fate.FAILS, version=definition.version, place=place, text=failure)
        return _fits(message, definition.version)

    def _look_at_command(self, letter: Kept, participant: Participant) -> _Look:
        """Whether a participant can read its command. No handler is called, for it may act."""
        try:
            envelope = codec.open_envelope(letter.raw, self._limits)
            handler = participant.handler_of(envelope.name, envelope.schema_version)
            if handler is None:
                raise UnknownMessage(f"{participant.name} has no handler for version {envelope.schema_version} of it")
            codec.parse(envelope, handler.command, self._limits)
        except MessageError as error:
            return _unread(error)
        return _fits(letter)

    def _failure(self, definition: Definition, message: Kept, read: Decoded, now: datetime) -> str | None:
        """Why a message that can be read would fail in its instance, or at making one."""
        envelope, event, instance = read.envelope, read.event, message.instance
        if envelope is None or event is None:  # a marker
            return None
        arrived = Arrived(
            message_id=envelope.message_id,
            name=envelope.name,
            body=envelope.body,
            event=event,
            causation_id=envelope.causation_id,
            kept=message.reason in (UNAWAITED, AWAITED),
        )
        if envelope.name in definition.starts and (instance is None or envelope.name not in definition.heard):
            key = read.key or ""
            identity = saga_id(self._namespace, definition.type, key)
            return prospect.failure_of_start(definition, arrived, identity, key, now)
        return None if instance is None else prospect.failure(definition, instance, arrived, now)

    # -- what is known here

    def _definition(self, message: Kept, latest: Definition) -> Definition | None:
        """What decides on a message: the version of its instance, else the latest."""
        if message.instance is None:
            return latest
        return self._sagas[message.consumer].get(message.instance.version)

    def _latest(self, saga_type: str) -> Definition | None:
        """The version that starts new instances; it reads what those of the others wait for as well."""
        return self._read_by.get(saga_type)

    # -- what was found

    def _add(self, cause: Cause, example: Example) -> None:
        finding = self._found.setdefault(cause, Finding(cause=cause))
        finding.amount += 1
        if len(finding.examples) < EXAMPLES:
            finding.examples.append(example)

    def _sorted(self, *, notes: bool) -> list[Finding]:
        chosen = [each for each in self._found.values() if (each.cause.code in NOTES) is notes]
        return sorted(chosen, key=lambda each: (-each.amount, each.cause.saga_type, each.cause.version or 0))


def _unread(error: MessageError, version: int | None = None) -> _Look:
    return _Look(fate=_Fate.UNREAD, version=version, place=type(error).__name__, text=str(error), error=error)


def _fits(message: Kept, version: int | None = None) -> _Look:
    text = f"dead-lettered as {message.reason}; it can be read now, and nothing raises"
    return _Look(fate=_Fate.FITS, version=version, place=message.reason, text=text)
