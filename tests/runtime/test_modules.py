"""User modules are found, walked and imported; what fails is told with the file and line of the user's code."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from messages.codec import Limits
from messages.errors import ConfigurationError, DefinitionError
from runtime.loading import load_modules
from runtime.modules import import_all


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder at the end of the path, whose modules are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_packages_are_walked_and_modules_taken_as_they_are(folder: Path) -> None:
    write(
        folder,
        {
            "shop_a/__init__.py": "",
            "shop_a/orders.py": "found = 1",
            "shop_a/deep/__init__.py": "",
            "shop_a/deep/returns.py": "",
            "shop_a/__main__.py": "raise SystemExit('must not run')",
            "single_a.py": "",
        },
    )
    names = [module.__name__ for module in import_all(["shop_a", "single_a"])]
    assert names == ["shop_a", "shop_a.deep", "shop_a.deep.returns", "shop_a.orders", "single_a"]


def test_every_missing_module_is_named_with_the_places_looked_in(folder: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        import_all(["nowhere_a", "nowhere_b.sagas", "json"])
    text = str(caught.value)
    assert "no module named nowhere_a, nowhere_b.sagas" in text
    assert str(folder) in text


def test_a_module_that_raises_is_told_with_its_own_line(folder: Path) -> None:
    write(folder, {"broken_b.py": "\n\nvalue = 1 / 0\n"})
    with pytest.raises(ConfigurationError, match=r"cannot import broken_b: ZeroDivisionError: .*broken_b\.py:3\)"):
        import_all(["broken_b"])


def test_a_module_that_lacks_another_is_told_as_such(folder: Path) -> None:
    write(folder, {"needy_c.py": "import not_installed_anywhere\n"})
    with pytest.raises(ConfigurationError, match=r"needy_c: .*not_installed_anywhere.*needy_c\.py:1"):
        import_all(["needy_c"])


def test_a_package_whose_own_init_fails_is_not_called_missing(folder: Path) -> None:
    write(folder, {"shop_d/__init__.py": "import not_installed_anywhere\n", "shop_d/sagas.py": ""})
    with pytest.raises(ConfigurationError, match=r"cannot import shop_d\.sagas: .*not_installed_anywhere"):
        import_all(["shop_d.sagas"])


def test_a_syntax_error_is_told_with_its_line(folder: Path) -> None:
    write(folder, {"wrong_e.py": "x = 1\ndef broken(:\n"})
    with pytest.raises(ConfigurationError, match=r"wrong_e.*SyntaxError.*wrong_e\.py:2"):
        import_all(["wrong_e"])


def test_a_module_that_ends_the_process_is_told_as_such(folder: Path) -> None:
    write(folder, {"leaving_g.py": "import sys\nsys.exit('bye')\n"})
    with pytest.raises(ConfigurationError, match=r"leaving_g: SystemExit: bye .*leaving_g\.py:2"):
        import_all(["leaving_g"])


def test_a_module_whose_exception_cannot_say_what_is_wrong_is_told_with_its_line(folder: Path) -> None:
    write(folder, {"mute_g.py": "class Mute(Exception):\n    def __str__(self):\n        return 7\nraise Mute\n"})
    with pytest.raises(
        ConfigurationError, match=r"cannot import mute_g: Mute \(no text: .*TypeError\).*mute_g\.py:4\)"
    ):
        import_all(["mute_g"])


def test_a_wrong_class_keeps_its_own_text(folder: Path) -> None:
    text = "from messages.errors import DefinitionError\nraise DefinitionError('Order.pay (f.py:1): odd; mend it')\n"
    write(folder, {"classes_f.py": text})
    with pytest.raises(DefinitionError, match=r"^Order\.pay \(f\.py:1\): odd; mend it$"):
        import_all(["classes_f"])


def test_the_sagas_of_a_process_keep_to_its_limits() -> None:
    known = load_modules(["sagas.catalog"], limits=Limits(max_body=2048))
    assert {each.limits.max_body for versions in known.sagas.values() for each in versions.values()} == {2048}
