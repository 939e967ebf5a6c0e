"""The plugin for pytest: `pytest_plugins = ["testkit.plugin"]` in the outermost `conftest.py` gives the fixture golden.

It writes nothing unless it is told to with `--golden-update`.
"""

from __future__ import annotations

import pytest

from testkit.golden import Golden


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes."""
    parser.getgroup("antiphon").addoption(
        "--golden-update", action="store_true", help="write the goldens of sagas anew instead of comparing them"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """The goldens beside the test, in files named from its folder."""
    return Golden(folder=request.path.parent, update=request.config.getoption("golden_update"))
