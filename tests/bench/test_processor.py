from __future__ import annotations

import os
import socket
import time

from bench.processor import ProcessorTime, listeners, used_between


def test_the_process_that_listens_on_a_port_is_found() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port: int = listening.getsockname()[1]
        assert os.getpid() in listeners(port)
    assert os.getpid() not in listeners(port)


def test_work_is_charged_to_the_group_that_did_it() -> None:
    processor = ProcessorTime({"ours": [os.getpid()], "nobody": []})
    before, until = processor.read(), time.process_time() + 0.1
    while time.process_time() < until:
        pass
    used = used_between(before, processor.read())
    assert used["ours"] > 0.05
    assert used["nobody"] == 0


def test_a_process_that_is_not_to_be_counted_is_not() -> None:
    processor = ProcessorTime({"ours": [os.getpid()]}, without=[os.getpid()])
    assert processor.read()["ours"] < ProcessorTime({"ours": [os.getpid()]}).read()["ours"]
