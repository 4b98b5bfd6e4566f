"""The engine names no vendor, and vendors' modules are pure: no clock, no I/O, no randomness, no HTTP library."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import gateway
import mappings
from gateway.registry import dialects

ENGINE = sorted(file for file in Path(str(gateway.__file__)).parent.rglob("*") if file.suffix in (".py", ".sql", ".md"))
MODULES = sorted(Path(str(mappings.__file__)).parent.rglob("*.py"))
IMPURE = {
    *(
        "aiohttp",
        "apsw",
        "asyncio",
        "calendar",
        "http",
        "httpx",
        "io",
        "logging",
        "os",
        "pathlib",
        "random",
        "requests",
    ),
    *("secrets", "socket", "sqlite3", "ssl", "starlette", "structlog", "subprocess", "sys", "tempfile"),
    *("threading", "time", "urllib3", "uuid", "uvicorn"),
}
CLOCKS = frozenset({"now", "utcnow", "today", "time", "monotonic"})


def _vendors() -> re.Pattern[str]:
    words = {word for name, dialect in dialects().items() for word in (name, dialect.title)}
    spelled = {re.escape(word).replace("_", "[ _-]?").replace(r"\ ", "[ _-]?") for word in words}
    return re.compile("|".join(sorted(spelled)), re.IGNORECASE)


def test_the_engine_names_no_vendor() -> None:
    vendors = _vendors()
    assert all(vendors.search(dialect.title) and vendors.search(name) for name, dialect in dialects().items())
    found = [
        f"{file.name}:{number}: {line.strip()}"
        for file in ENGINE
        for number, line in enumerate(file.read_text("utf8").splitlines(), 1)
        if vendors.search(line)
    ]
    assert not found


@pytest.mark.parametrize("file", MODULES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_a_vendors_module_is_pure(file: Path) -> None:
    tree = ast.parse(file.read_text("utf8"))
    nodes = list(ast.walk(tree))
    imported = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module).split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    assert not imported & IMPURE
    called = [node.func for node in nodes if isinstance(node, ast.Call)]
    names = {func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "") for func in called}
    assert not names & (CLOCKS | {"open", "print", "eval", "exec", "__import__"})


def test_the_check_finds_what_it_looks_for() -> None:
    """A check that cannot fail proves nothing."""
    assert len(MODULES) > len(dialects())
    assert len(ENGINE) > 20
    assert "datetime" not in IMPURE, "a time that is handed in may be converted"
