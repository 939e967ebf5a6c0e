from __future__ import annotations

import asyncio

from transport.mailbox import Mailbox


async def test_whoever_takes_gets_all_there_is() -> None:
    mailbox: Mailbox[int] = Mailbox()
    mailbox.put(1)
    mailbox.put(2)

    assert await mailbox.take() == [1, 2]


async def test_whoever_takes_from_an_empty_one_waits_for_the_first() -> None:
    mailbox: Mailbox[int] = Mailbox()
    waiting = asyncio.ensure_future(mailbox.take())
    await asyncio.wait([waiting], timeout=0)
    assert not waiting.done()

    mailbox.put(1)

    async with asyncio.timeout(10):
        assert await waiting == [1]


async def test_a_closed_one_gives_what_it_has_and_then_nothing() -> None:
    mailbox: Mailbox[int] = Mailbox()
    mailbox.put(1)
    mailbox.close()
    mailbox.put(2)

    assert await mailbox.take() == [1]
    assert await mailbox.take() == []


async def test_closing_releases_who_waits() -> None:
    mailbox: Mailbox[int] = Mailbox()
    waiting = asyncio.ensure_future(mailbox.take())
    mailbox.close()

    async with asyncio.timeout(10):
        assert await waiting == []
