"""What a class takes that answers none of its commands, waits, signals and cancels, and its queries; and all that is
wrong with them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from sagas.checks import check_signature, hooks_of
from sagas.definition import (
    Call,
    Heard,
    Notice,
    Purpose,
    Reply,
    ReplyKind,
    Unfit,
    WaitDefinition,
    WayDefinition,
    label,
)
from sagas.keywords import LISTENER, NOTICE, ON, RETRY, TIMEOUT, WAIT, reply_types, sound
from sagas.layout import answers_of
from sagas.listeners import Wait, is_query, listener_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import timedelta

    from messages import Event
    from sagas.listeners import Listener
    from sagas.message_types import MessageTypes


_TAKEN = ("timeout", "sleep", "open", "entry", "moved", "do", "undo")
_LEADS = "-> Literal[Standing.PAST_DUE]"


class Listening:
    """One class being read. What cannot be read is told to the problems of `types` and left out."""

    def __init__(self, types: MessageTypes) -> None:
        self._types, self._source, self._problems = types, types.source, types.problems
        self.heard: dict[str, Heard] = {}
        self.waits: dict[str, WaitDefinition] = {}
        self.elsewhere: dict[str, Unfit] = {}
        self.ways: dict[str, WayDefinition] = {}
        self.queries: dict[str, Callable[[Any], object]] = {}
        for name, member in self._source.members.items():
            if isinstance(member, Wait) and member._name == name:
                self.waits[name] = self._wait(member)
            elif isinstance(member, FunctionType) and (listener := listener_of(member)) is not None:
                if listener.word == "on":
                    self._lead(member, listener)
                else:
                    self._listen(member, listener.word, listener.keywords)
            elif isinstance(member, FunctionType) and is_query(member):
                check_signature(member, "self", self._problems)
                self.queries[name] = member

    def may_fail(self) -> dict[str, FunctionType]:
        """The waits that may fail, and their methods: by an event that says no, or because nobody says anything."""
        refused = {heard.name for heard in self.heard.values() if heard.role == "wait" and _says_no(heard)}
        given_up = {name for name, wait in self.waits.items() if wait.timeout is not None and wait.fails}
        return {name: cast("Any", self._source.members[name])._method for name in refused | given_up}

    # -- waits

    def _wait(self, wait: Wait[Any]) -> WaitDefinition:
        method = wait._method
        check_signature(method, "self, event", self._problems)
        good = sound(wait._keywords, WAIT, partial(self._problems.of_method, method))
        hooks = hooks_of(wait, self._source)
        noes = [(hook.kind, self._source.effective(hook.method)) for hook in hooks if hook.kind and not hook.timeout]
        for reply in self._replies(wait, noes):
            self._hear("wait", wait._method, reply, good, default=Unfit.KEEP)
        self._check_said(wait, good)
        expiries = [self._source.effective(hook.method) for hook in hooks if hook.timeout]
        for hook in expiries:
            check_signature(hook, "self", self._problems)
        for surplus in expiries[1:]:
            text = f"is a second on_timeout of {wait._name!r} beside {expiries[0].__name__!r}; keep one"
            self._problems.of_method(surplus, text)
        timeout = cast("timedelta | None", good.get("timeout"))
        if expiries and timeout is None:
            text = f"is called when {wait._name!r} times out, and that has no timeout=; write one, or remove this"
            self._problems.of_method(expiries[0], text)
        return WaitDefinition(
            name=wait._name,
            timeout=timeout,
            expire=next(iter(expiries), None),
            fails=not any(hook.timeout and hook.kind is None for hook in hooks),
            notices=MappingProxyType(self._notices(wait, timeout)),
        )

    def _replies(self, wait: Wait[Any], hooks: list[tuple[ReplyKind, FunctionType]]) -> Iterator[Reply]:
        for event in self._types.events(wait._method, "the event that is waited for"):
            yield Reply(kind=ReplyKind.SUCCESS, event=event, hook=wait._method)
        for event in reply_types(wait._keywords, ReplyKind.FAILURE):
            if self._types.is_concrete(event, wait._method):
                yield Reply(kind=ReplyKind.FAILURE, event=event)
        for kind, hook in hooks:
            check_signature(hook, "self, event", self._problems)
            for event in self._types.events(hook, f"the event that ends {wait._name!r}"):
                yield Reply(kind=kind, event=event, hook=hook)

    def _notices(self, wait: Wait[Any], timeout: timedelta | None) -> dict[str, Notice]:
        written = [notice for notice in wait._notices if self._source.wrote(notice._body)]
        notices = {}
        for notice in {notice._name: notice for notice in written}.values():
            method = notice._method
            check_signature(method, "self", self._problems)
            good = sound(notice._keywords, NOTICE, partial(self._problems.of_method, method))
            after = cast("timedelta", good.get("after", TIMEOUT))
            self._check_name(method)
            if timeout is not None and after >= timeout:
                text = f"is sent after {after}, when {wait._name!r} has timed out already, after {timeout}; be earlier"
                self._problems.of_method(method, text)
            notices[notice._name] = Notice(
                call=Call(
                    name=notice._name,
                    purpose=Purpose.DO,
                    command=self._types.command(method),
                    build=method,
                    replies=MappingProxyType({}),
                    timeout=TIMEOUT,
                    retry=RETRY[Purpose.DO],
                ),
                kind=notice._kind,
                after=after,
                every=cast("timedelta | None", good.get("every")),
            )
        return notices

    def _check_name(self, method: FunctionType) -> None:
        """What has a timer of its own is not called as something else that is kept there is."""
        if method.__name__ in _TAKEN:
            text = f"is called {method.__name__!r}, as something that the engine keeps there is; choose another name"
            self._problems.of_method(method, text)

    # -- signals and cancels

    def _listen(self, method: FunctionType, word: str, keywords: Mapping[str, object]) -> None:
        check_signature(method, "self, event", self._problems)
        good = sound(keywords, LISTENER, partial(self._problems.of_method, method))
        meaning = "the event that turns the saga back" if word == "cancel" else "the event that it takes"
        for event in self._types.events(method, meaning):
            reply = Reply(kind=ReplyKind.SUCCESS, event=event, hook=method)
            self._hear(word, method, reply, good, default=Unfit.IGNORE)

    # -- ways from state to state

    def _lead(self, method: FunctionType, listener: Listener) -> None:
        good = sound(listener.keywords, ON, partial(self._problems.of_method, method))
        after = cast("timedelta | None", good.get("after"))
        check_signature(method, "self, event" if after is None else "self", self._problems)
        states = frozenset(name for state in listener.states if (name := label(state)) is not None)
        if not states or len(states) < len(set(map(str, listener.states))):
            text = "does not say in which states; write @on(Standing.ACTIVE), with strings or members of an Enum"
            self._problems.of_method(method, text)
        annotated = self._types.annotation(method, "return", "annotate the states that it leads to, " + _LEADS)
        others = tuple(each for each in annotated if each not in (None, type(None)))
        targets = answers_of(others) or frozenset()
        if others and not targets:
            self._problems.of_method(method, f"does not list the states that it leads to; annotate {_LEADS}")
        name = method.__name__
        stays = len(others) < len(annotated)
        self.ways[name] = WayDefinition(
            name=name, states=states, targets=targets, stays=stays, take=method, after=after
        )
        if after is not None:
            self._check_name(method)
            return
        for event in self._types.events(method, "the event that it takes"):
            self._take(method, event, states, good)

    def _take(
        self, method: FunctionType, event: type[Event], states: frozenset[str], keywords: Mapping[str, object]
    ) -> None:
        """One more method that takes an event, in other states than those before it."""
        known = self.heard.get(event.message_name)
        if known is None or known.role != "on":
            self._hear("on", method, Reply(kind=ReplyKind.SUCCESS, event=event), keywords, default=Unfit.IGNORE)
            known = self.heard[event.message_name]
        for state in sorted(states & known.ways.keys()):
            other = known.ways[state]
            text = f"takes {event.__name__} in the state {state!r}, as {other!r} does; keep one"
            self._problems.of_method(method, text)
        elsewhere = keywords.get("elsewhere")
        if elsewhere is not None:
            self.elsewhere[event.message_name] = Unfit(cast("str", elsewhere))
        self.heard[event.message_name] = replace(
            known,
            ways={**known.ways, **dict.fromkeys(states, method.__name__)},
            unexpected=self.elsewhere.get(event.message_name, Unfit.IGNORE),
        )

    # -- both

    def _hear(
        self, role: str, method: FunctionType, reply: Reply, keywords: Mapping[str, object], *, default: Unfit
    ) -> None:
        event, other = reply.event, self.heard.get(reply.event.message_name)
        if other is not None:
            text = f"{event.__name__} is taken by {other.name!r} already; an event is for one thing in a saga, keep one"
            self._problems.of_method(method, text)
            return
        by, because = (self._field(event, keywords.get(word)) for word in ("by", "because"))
        self.heard[event.message_name] = Heard(
            role=role,  # type: ignore[arg-type]
            name=method.__name__,
            reply=reply,
            missing=Unfit(cast("str", keywords.get("missing", Unfit.KEEP))),
            unexpected=Unfit(cast("str", keywords.get("unexpected", default))),
            by=by,
            because=because,
        )

    def _field(self, event: type[Event], name: object) -> str | None:
        """The field that says it, where the event has it: a yes may need no reason."""
        return cast("str | None", name) if name in event.model_fields else None

    def _check_said(self, wait: Wait[Any], keywords: Mapping[str, object]) -> None:
        heard = [each for each in self.heard.values() if each.role == "wait" and each.name == wait._name]
        for word in ("by", "because"):
            name = keywords.get(word)
            if name is not None and all(getattr(each, word) is None for each in heard):
                self._problems.of_method(wait._method, f"says {word}={name!r}, and none of its events has that field")


def _says_no(heard: Heard) -> bool:
    return heard.reply.kind is ReplyKind.FAILURE
