"""What schemathesis is to know of this service (schemathesis.toml names this file)."""

import json

import schemathesis
from schemathesis.specs.openapi import checks

LONGEST_WAIT_SECONDS = 1


# Requests may ask to wait for up to a minute, which is right and slow.


def _shortened(value):
    try:
        seconds = int(value)
    except (TypeError, ValueError):
        return value
    return LONGEST_WAIT_SECONDS if LONGEST_WAIT_SECONDS < seconds <= 60 else value


@schemathesis.hook
def before_call(context, case, kwargs):
    for place, name in ((case.query, "wait"), (case.body, "wait_seconds")):
        if isinstance(place, dict) and name in place:
            place[name] = _shortened(place[name])
    preference = (case.headers or {}).get("Prefer")
    if isinstance(preference, str) and preference.startswith("wait="):
        case.headers["Prefer"] = f"wait={LONGEST_WAIT_SECONDS}"


# Whoever shows wrong credentials often is refused as 429 instead of 401, until he waits, and all of 127.0.0.0/8 is one.
# The check `ignored_auth` knows 401 alone.

_refuses = checks._enforces_auth


def _refuses_or_slows_down(response, authenticated):
    if response.status_code == 429:
        return json.loads(response.content)["code"] == "too-many-failures"
    return _refuses(response, authenticated)


checks._enforces_auth = _refuses_or_slows_down


# The contract names the problems of each operation by `x-problems`, there, at parameters and at responses.


def _resolved(document, value):
    if not isinstance(value, dict) or "$ref" not in value:
        return value
    found = document
    for name in value["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return found


def _problems(document, path, method):
    operation = document["paths"][path][method]
    parts = [operation]
    parts += document["paths"][path].get("parameters", [])
    parts += operation.get("parameters", [])
    parts += operation["responses"].values()
    return {slug for part in parts for slug in _resolved(document, part).get("x-problems", [])}


@schemathesis.check
def problem_conformance(context, response, case):
    """A problem is one that the contract gives the operation."""
    if "application/problem+json" not in response.headers.get("content-type", [""])[0]:
        return
    operation = case.operation
    if case.method.upper() != operation.method.upper():
        return
    code = json.loads(response.content)["code"]
    known = _problems(operation.schema.raw_schema, operation.path, operation.method)
    # What generated names make of a path may be no route, or another one.
    assert code in known | {"not-found"}, f"{operation.label} does not have the problem {code}"


@schemathesis.check
def lines_conformance(context, response, case):
    """Each line of a log is an object of its own."""
    if "application/x-ndjson" not in response.headers.get("content-type", [""])[0]:
        return
    for line in response.content.splitlines():
        assert isinstance(json.loads(line), dict)
