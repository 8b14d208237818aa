"""The schemas: generated from the manifest, and two libraries agree about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.contracts.drift import listing
from harness.contracts.generate import drifted, generated
from harness.contracts.library import FIXTURES, REPOSITORY, SCHEMA_EXACT, SCHEMA_MIN, Manifest, manifest_of
from harness.contracts.schema import schema

MANIFEST = manifest_of()
MIN, EXACT = schema(MANIFEST, exact=False), schema(MANIFEST, exact=True)
GOLDENS = [json.loads((REPOSITORY / FIXTURES / f"{name}.json").read_text()) for name in listing()["fixtures"]]
Get = Callable[[str], dict[str, Any]]


def test_generated_files_are_on_disk() -> None:
    """Schemas and documents are what the manifest, the fixtures and the drills say today."""
    assert drifted() == [], "run python -m harness.contracts.generate"
    assert {SCHEMA_MIN, SCHEMA_EXACT} < set(generated())


@pytest.mark.parametrize("which", [MIN, EXACT], ids=["min", "exact"])
def test_schemas_are_lawful(which: dict[str, Any]) -> None:
    """Draft 2020-12 by its own meta-schema."""
    jsonschema.Draft202012Validator.check_schema(which)


def test_schemas_differ_only_in_openness() -> None:
    """Same rules; only the exact one is closed."""
    about = {"$id", "title", "description", "additionalProperties"}
    assert {key: MIN[key] for key in MIN.keys() - about} == {key: EXACT[key] for key in EXACT.keys() - about}
    assert (MIN["additionalProperties"], EXACT["additionalProperties"]) == (True, False)


def test_a_new_code_reaches_the_schema(golden: Get) -> None:
    """The manifest is the single source: a code added there is lawful, one removed is not."""
    raw = json.loads(json.dumps(MANIFEST.raw))
    raw["registries"]["ModeReasonCode"]["Kill"].append("KILL_NEW")  # not-a-code: made for this test
    document = {**golden("unknown_token_force_kill"), "mode_reasons": ["KILL_NEW"]}  # not-a-code: as above
    assert jsonschema.Draft202012Validator(schema(Manifest(raw), exact=True)).is_valid(document)
    assert not jsonschema.Draft202012Validator(EXACT).is_valid(document)


_SCALAR = (st.none() | st.booleans() | st.integers(-3, 2**62) | st.floats(allow_nan=False, allow_infinity=False)
           | st.sampled_from(sorted(MANIFEST.codes)) | st.text(max_size=5))
_VALUE = _SCALAR | st.lists(_SCALAR, max_size=3) | st.dictionaries(st.sampled_from(
    ["primary_owner_reason_code", "owner_message", "unblock", "x"]), _SCALAR | st.lists(st.dictionaries(
        st.sampled_from(["type", "condition", "current", "target", "y"]), _SCALAR, max_size=5), max_size=2), max_size=4)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(GOLDENS), st.dictionaries(st.sampled_from([*sorted(MANIFEST.known_keys), "extra"]), _VALUE,
                                                 max_size=3),
       st.sets(st.sampled_from(MANIFEST.minimum_keys), max_size=2), st.sampled_from([MIN, EXACT]))
def test_second_opinion(base: dict[str, Any], changes: dict[str, Any], gone: set[str], which: dict[str, Any]) -> None:
    """The fast library of the hot path and the plain one agree over mutated goldens: verdict and places."""
    document = {key: value for key, value in {**base, **changes}.items() if key not in gone}
    plain, fast = jsonschema.Draft202012Validator(which), jsonschema_rs.Draft202012Validator(which)
    assert plain.is_valid(document) == fast.is_valid(document)
    assert ({tuple(map(str, each.absolute_path)) for each in plain.iter_errors(document)}
            == {tuple(map(str, each.instance_path)) for each in fast.iter_errors(document)})
