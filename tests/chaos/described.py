"""Promise 22: the OpenAPI description is true. Schemathesis calls a running gateway as it is described, with bodies
that keep to the description and bodies that do not; every answer must be one that is described, and none a 5xx.

    python -m tests.chaos.described --cases 50000
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisDeprecationWarning

from gateway.logs import configure
from gateway.registry import dialects
from tests.chaos.result import Result, numbers
from tests.engine.test_openapi import BELOW, CHECKS, calls_its_path, ids
from tests.harness import KEY, House, house


def _call(h: House, schema: Any, path: str, method: str, cases: int, seen: Counter[int], wrong: list[str]) -> None:
    """Runs `cases` calls of one operation, up to the first fault."""
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    drawn = st.one_of(*(schema[path][method].as_strategy(generation_mode=mode) for mode in modes))
    key_in_body = dialects()[path.split("/")[1]].credential_in_body
    session = requests.Session()

    @settings(
        max_examples=cases,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],
    )
    @given(case=drawn, name=st.sampled_from(ids(h, path) or ["unknown"]), has_name=st.booleans())
    def keeps_to_it(case: Any, name: str, has_name: bool) -> None:
        if has_name and case.path_parameters:
            case.path_parameters = dict.fromkeys(case.path_parameters, name)
        assume(calls_its_path(case))
        if isinstance(case.body, dict) and key_in_body:
            case.body = {**case.body, "apiKey": KEY}
        answer = case.call(base_url=h.url, headers={"Authorization": f"Bearer {KEY}"}, session=session)
        seen[answer.status_code // 100] += 1
        case.validate_response(answer, checks=CHECKS)

    try:
        keeps_to_it()
    except (Exception, BaseExceptionGroup) as error:
        wrong.append(f"{method} {path}: {_first(error)}")
    finally:
        session.close()


def _first(error: BaseException) -> str:
    """Returns the first fault, in short."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(str(error).split())[:300]


def measure(cases: int, most: int = len(BELOW)) -> Result:
    """Runs `cases` calls, shared among `most` operations of all dialects; each dialect is the upstream of another."""
    began, seen, wrong = time.monotonic(), Counter[int](), list[str]()
    names = list(dialects())
    shifted = dict(zip(names, names[1:] + names[:1], strict=True))
    routes = "".join(f'[[routes]]\nfrom = ["{one}"]\nto = ["to_{other}"]\n' for one, other in shifted.items())
    with tempfile.TemporaryDirectory() as directory:
        upstreams = {f"to_{name}": name for name in names}
        with house(Path(directory), upstreams, routes, top='reply_timeout = "500ms"') as h:
            schema = schemathesis.openapi.from_dict(h.client.get(h.url + "/-/openapi.json").json())
            for number, (path, method) in enumerate(BELOW[:most]):
                share = (cases - sum(seen.values())) // (min(most, len(BELOW)) - number)
                _call(h, schema, path, method, max(1, share), seen, wrong)
    figures = {
        "cases": sum(seen.values()),
        "operations": min(most, len(BELOW)),
        **{f"{status}xx": seen[status] for status in (2, 4, 5)},
        "untrue answers": len(wrong),
        "seconds": round(time.monotonic() - began),
    }
    broken = wrong[:3] + ([f"{seen[5]} answers of 5xx"] if seen[5] else [])
    return Result("22", figures, broken)


def main() -> int:
    """The command."""
    configure("critical")
    warnings.simplefilter("ignore", HypothesisDeprecationWarning)  # of schemathesis' own strategies
    return measure(numbers(__doc__ or "", cases=50_000).cases).tell()


if __name__ == "__main__":
    sys.exit(main())
