"""A disk that is really full: a small file system in memory, which takes the rights of root to make.

What everybody can run is in `test_database_faults` and `test_one_process`.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.crash.driver import Setup, Shop, Sidecar, at_rest, finished, order_body, reader, start_id
from tests.crash.laboratory import Laboratory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services.private import PrivatePostgres

SIZE = 24  # MiB
COMPLETED = {"completed"}


@contextmanager
def small_disk(at: Path, owner: str) -> Iterator[Path]:
    """A file system of a few MiB."""
    assert os.geteuid() == 0, "a file system is mounted by root; everybody's tests of a full disk are in `make test`"
    at.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}m,uid={owner},mode=0700", "antiphon", at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)


@pytest.mark.soak
async def test_postgresql_whose_disk_is_full_is_waited_for(
    private_postgres: PrivatePostgres, rabbitmq_url: str, namespace: str, tmp_path: Path
) -> None:
    with small_disk(private_postgres.folder / "small", str(private_postgres.folder.stat().st_uid)) as disk:
        private_postgres.psql(f"create tablespace small location '{disk}'")
        private_postgres.psql("create database small tablespace small")
        url = private_postgres.database_url("small")
        setup = Setup(folder=tmp_path, database_url=url, broker_url=rabbitmq_url, namespace=namespace)
        try:
            async with Laboratory(setup=setup) as laboratory:
                wires = await laboratory.wires()
                sidecar = await laboratory.sidecar("sidecar", wires)
                await laboratory.participants()
                filler = await asyncpg.connect(url)
                await filler.execute("create table filler (page text)")
                with pytest.raises(asyncpg.DiskFullError):
                    while True:
                        await filler.execute(
                            "insert into filler select repeat(md5(random()::text), 60) from generate_series(1, 20)"
                        )
                async with Shop(rabbitmq_url, namespace) as shop:
                    starts = await shop.place(*[f"o-{number}" for number in range(200)])
                await wires.pg.seen("pg.s2c.error", when=lambda event: event.details["sqlstate"] == "53100")
                await filler.execute("drop table filler")
                await filler.close()
                await laboratory.judge(starts, dict.fromkeys(starts, COMPLETED))
                assert wires.given_back == 0
                assert await sidecar.stop() == 0
        finally:
            private_postgres.psql("drop database small with (force)")
            private_postgres.psql("drop tablespace small")


@pytest.mark.soak
async def test_an_sqlite_file_whose_disk_is_full_is_waited_for(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "0") as disk:
        setup = Setup(folder=tmp_path, database_url=f"sqlite:///{disk / 'shop.db'}", settings={"SWEEP": "0.1"})
        await finished("migrate", setup, "migrate")
        orders = [f"o-{number}" for number in range(3)]
        for each in orders:
            words = ("publish", "ordering.OrderPlaced", order_body(each), "--message-id", start_id(each))
            await finished(f"publish-{each}", setup, *words)
        async with await Sidecar.start(setup) as sidecar:
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as filling, pytest.raises(OSError, match="No space left"):
                while True:
                    filling.write(bytes(4096))
            await sidecar.child.says("the database could not do it now")
            filler.unlink()
            picture = await at_rest(reader(setup, setup.database_url), orders, setup.ledger)
            assert [saga.phase for saga in picture.sagas] == ["completed"] * len(orders)
            assert await sidecar.stop() == 0
