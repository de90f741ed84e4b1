"""The API against its own description, by schemathesis: whatever is sent, what is said is what comes."""

from __future__ import annotations

import os

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from chromatune.serving.local import LocalPredictor
from chromatune.serving.settings import make_serve_settings

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("CHROMATUNE_EXAMPLES", "40"))  # of each route, good ones and bad ones
# A schema cannot say which bytes are a picture, nor which numbers lie on it
NOT_DESCRIBED = [positive_data_acceptance]
GIVEN = {"model": ("mini",), "queue": 1000, "batches": 500}


@pytest.fixture
def api(engine, port_of, until):
    """The description of a server over the arithmetic model, which is loaded."""
    predictor = LocalPredictor(make_serve_settings(**GIVEN))
    port = port_of(predictor, **GIVEN)
    until(lambda: predictor.state.name == "ready")
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")


def test_what_is_sent_is_answered_as_described(api) -> None:
    failures: dict[str, str] = {}
    with requests.Session() as session:
        for result in api.get_all_operations():
            operation = result.ok()
            for mode in GenerationMode:
                try:
                    _send(operation, mode, session)
                except Unsatisfiable:  # a route that takes nothing cannot be asked wrongly
                    continue
                except BaseExceptionGroup as error:  # all operations are tried, and all failures told
                    failures[f"{operation.label} ({mode.value})"] = "\n".join(str(each) for each in error.exceptions)[
                        :1500
                    ]
    assert not failures, "\n\n".join(f"{name}: {line}" for name, line in failures.items())


def _send(operation, mode: GenerationMode, session: requests.Session) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def send(case) -> None:
        case.call_and_validate(session=session, excluded_checks=NOT_DESCRIBED)

    send()
