"""The vendors' documented requests and replies, shipped with their dialects.

They are used by the demonstration, the documentation and the golden tests. A dialect that is a package has a folder
`examples` with one JSON file per documented sample; each names the page it comes from. It must not know any vendor.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from importlib import import_module, resources
from importlib.util import find_spec
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from gateway import outcome
from gateway.canonical import Operation
from gateway.dialect import CREDENTIAL, Dialect
from gateway.mapping.wire import Wire, copied, get, put


class ExampleRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request as documented.

    `path` is the route's, with its variables in braces, and `params` are their documented values. Where the body
    contains the id or version of a real alert, `placeholders` maps the path in the body to ``id`` or ``version``.
    """

    method: str
    path: str
    params: dict[str, str] = {}
    headers: dict[str, str] = {}
    body: Any | UnsetType = UNSET
    placeholders: dict[str, str] = {}

    def about(self, id: str | None = None, version: int | None = None) -> outcome.Request:  # noqa: A002
        """The request to send, about the alert with this id and version, or about the documented one. A credential in
        its path is left for `with_credential`."""
        actual_id = {"id": id} if id is not None and "id" in self.params else {}
        params = {**self.params, **actual_id, CREDENTIAL: f"{{{CREDENTIAL}}}"}
        body = copied(self.body)
        actual = {"id": _like(id, get(body, _place(self.placeholders, "id"))), "version": version}
        for place, what in self.placeholders.items():
            if actual[what] is not None:
                put(body, place, actual[what])
        return outcome.Request(method=self.method, path=self.path.format(**params), headers=self.headers, body=body)


class ExampleReply(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The documented answer to a request; a body of `UNSET` is an empty one."""

    status: int
    body: Any | UnsetType = UNSET


class Example(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One documented sample: its title, the page it is from, and the operation that it asks for.

    A credential in it is the vendor's own placeholder; `with_credential` replaces it by a real one.
    """

    title: str
    source: str
    operation: Operation
    request: ExampleRequest
    reply: ExampleReply | None = None
    name: str = ""


@functools.cache
def examples(dialect_name: str) -> tuple[Example, ...]:
    """The documented samples of a dialect, sorted by file name; none where the dialect is not a package."""
    if find_spec(f"mappings.{dialect_name}") is None:
        return ()
    module = import_module(f"mappings.{dialect_name}")
    if not hasattr(module, "__path__"):
        return ()
    folder = resources.files(module) / "examples"
    if not folder.is_dir():
        return ()
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)
    found = []
    for file in files:
        example = msgspec.json.decode(file.read_bytes(), type=Example)
        found.append(msgspec.structs.replace(example, name=file.name.removesuffix(".json")))
    return tuple(found)


def openings(dialect: Dialect) -> Iterator[outcome.Json]:
    """Bodies that open an alert: the documented ones, or the `samples` of a dialect without any."""
    documented = [one.request.body for one in examples(dialect.name) if one.operation == Operation.CREATE]
    yield from documented or dialect.samples


def with_credential(request: outcome.Request, dialect: Dialect, credential: str) -> outcome.Request:
    """The request with a credential where the dialect looks for it, in place of the documented placeholder."""
    blank = outcome.Request(method=request.method, path=request.path, body={})
    key = dialect.outbound.authorise(blank, credential)
    filled = msgspec.structs.replace(request.with_headers(key.headers), path=key.path)
    if not key.body:
        return filled
    body = request.body if isinstance(request.body, dict) else {}
    return msgspec.structs.replace(filled, body={**body, **key.body})


def _place(placeholders: dict[str, str], what: str) -> str:
    return next((place for place, named in placeholders.items() if named == what), what)


def _like(value: str | None, documented: Wire | Any) -> Any:
    """An id in the type that it has in the documented body."""
    return int(value) if value is not None and isinstance(documented, int) else value
