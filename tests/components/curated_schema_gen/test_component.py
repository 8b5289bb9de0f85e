from __future__ import annotations

import pytest

from components.curated_schema_gen.component import CuratedSchemaGen


def _fingerprint(file):
    return CuratedSchemaGen(str(file)).exec_properties["schema_fingerprint"]


def test_an_edited_schema_has_another_fingerprint(tmp_path):
    file = tmp_path / "schema.pbtxt"
    file.write_text('feature { name: "a" }')
    before = _fingerprint(file)
    assert _fingerprint(file) == before
    file.write_text('feature { name: "b" }')
    assert _fingerprint(file) != before


def test_a_missing_schema_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ValueError, match=r"the schema .*nowhere.pbtxt cannot be read: No such file"):
        CuratedSchemaGen(str(tmp_path / "nowhere.pbtxt"))
