from __future__ import annotations

import pytest
from tfx.types.standard_artifacts import InfraBlessing, ModelBlessing

from components.serving_check.driver import Driver


@pytest.fixture
def key(model_in_store):
    def call():
        added = Driver(model_in_store.connection).run(model_in_store.info()).exec_properties
        return {name: value.string_value for name, value in added.items()}

    return call


def test_a_model_that_has_failed_has_another_key_until_it_passes(key, model_in_store):
    model_in_store.make(ModelBlessing, blessed=0)  # the Evaluator's
    assert key() == {"after_failure": ""}
    first = model_in_store.make(InfraBlessing, blessed=0)
    assert key() == {"after_failure": str(first)}
    second = model_in_store.make(InfraBlessing, blessed=0)
    assert key() == {"after_failure": str(second)}
    model_in_store.make(InfraBlessing, blessed=1)
    assert key() == {"after_failure": str(second)}  # the key that it has passed with


def test_a_model_that_has_passed_is_not_checked_again(key, model_in_store):
    model_in_store.make(InfraBlessing, blessed=1)
    assert key() == {"after_failure": ""}
