"""The documentation pages: generated parts are up to date, and what a reader would copy works."""

import re
import tomllib
from pathlib import Path

import pytest

from gateway import __version__
from gateway.config.loading import parse
from gateway.documents import dialect_table, mappings_page, readme_with
from gateway.registry import dialects

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf8")
CONFIGURATIONS = re.findall(r"^```toml\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_the_table_of_fields_is_not_stale() -> None:
    assert (ROOT / "mappings" / "README.md").read_text("utf8") == mappings_page(dialects()), (
        "run: python -m gateway.documents"
    )


def test_the_page_says_of_each_vendor_what_its_url_and_key_are() -> None:
    """As the README promises of it."""
    for title, text in _sections(mappings_page(dialects()), "##").items():
        says = text.partition("| wire field")[0]
        assert "usual `url` is `http" in says or "`url` is the whole address" in says, title
        assert "`key`" in says, title


def test_the_table_of_dialects_is_not_stale() -> None:
    assert readme_with(README, dialect_table(dialects())) == README, "run: python -m gateway.documents"


def test_the_readme_has_its_three_configurations_and_a_vendor_of_ones_own() -> None:
    assert len(CONFIGURATIONS) == 5


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_a_configuration_of_the_readme_is_good(text: str) -> None:
    config = parse(text, secrets=False)
    assert set(config.inbounds) == set(tomllib.loads(text)["inbound"])


def _sections(text: str, level: str) -> dict[str, str]:
    """The text below each heading of a level, by title, in order."""
    parts = re.split(rf"^{level} (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_changelog_comes_last_and_names_the_present_release() -> None:
    """issue 6.9: the changelog has a heading per release, newest first, with what changed for users."""
    chapters = _sections(README, "##")
    assert list(chapters)[-2:] == ["Changelog", "Licence"]
    releases = _sections(chapters["Changelog"], "###")
    assert next(iter(releases)) == __version__
    numbers = [tuple(map(int, release.split("."))) for release in releases]
    assert numbers == sorted(numbers, reverse=True)
    assert all("**What a page says.**" in entry for entry in releases.values())


def test_every_release_whose_store_is_kept_is_in_the_changelog() -> None:
    kept = {path.stem for path in (ROOT / "tests" / "chaos" / "stores").glob("*.db")}
    assert kept and kept <= set(_sections(README, "###"))


def test_a_house_has_no_room_that_its_plan_does_not_name() -> None:
    plan = (ROOT / "gateway" / "README.md").read_text("utf8")
    modules = {path.stem for path in (ROOT / "gateway").glob("[a-z]*.py")}
    folders = {f"{path.parent.name}/" for path in (ROOT / "gateway").glob("*/__init__.py")}
    assert not {room for room in modules | folders if f"`{room}`" not in plan}
