from __future__ import annotations

import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.types.standard_artifacts import Model, ModelBlessing, PushedModel

from components.earlier.model import BaselineStrategy


@pytest.fixture
def resolve(tmp_path):
    """Returns the number of the resolved model; a model is (number from 1, blessed and pushed, rolled back)."""

    def call(*models, gone=(), not_pushed=(), again=()):
        config = mlmd.ConnectionConfig()
        config.fake_database.SetInParent()
        store = MetadataStore(config)
        pusher = store.put_execution_type(mlmd.ExecutionType(name="pusher"))

        def put(artifact):
            artifact.type_id = store.put_artifact_type(artifact.artifact_type)
            (artifact.id,) = store.put_artifacts([artifact.mlmd_artifact])

        def push(*inputs, is_pushed):
            pushed = PushedModel()
            pushed.set_int_custom_property("pushed", int(is_pushed))
            put(pushed)
            (execution,) = store.put_executions([mlmd.Execution(type_id=pusher)])
            events = [*((one, mlmd.Event.INPUT) for one in inputs), (pushed, mlmd.Event.OUTPUT)]
            store.put_events(
                [mlmd.Event(artifact_id=one.id, execution_id=execution, type=kind) for one, kind in events]
            )

        artifacts, blessings, numbers = [], [], {}
        for number, is_blessed, is_rolled_back in models:
            model, blessing = Model(), ModelBlessing()
            model.uri = str(tmp_path / str(number))
            if number not in gone:
                (tmp_path / str(number)).mkdir(exist_ok=True)
            if is_rolled_back:
                model.set_string_custom_property("rolled_back", "2026-11-24T09:00:00+00:00")
            put(model)
            numbers[model.id] = number
            blessing.set_int_custom_property("current_model_id", model.id)
            blessing.set_int_custom_property("blessed", int(is_blessed))
            put(blessing)
            push(model, blessing, is_pushed=is_blessed and number not in not_pushed)
            artifacts.append(model)
            blessings.append(blessing)
        for number in again:  # pushed once more
            index = [numbers[model.id] for model in artifacts].index(number)
            push(artifacts[index], blessings[index], is_pushed=True)
        resolved = BaselineStrategy().resolve_artifacts(store, {"model": artifacts, "model_blessing": blessings})
        of_blessings = [blessing.get_int_custom_property("current_model_id") for blessing in resolved["model_blessing"]]
        assert of_blessings == [model.id for model in resolved["model"]]
        return [numbers[model.id] for model in resolved["model"]]

    return call


def test_the_latest_model_in_service_is_the_baseline(resolve):
    assert resolve((1, True, False), (2, True, False), (3, False, False)) == [2]


def test_a_model_that_was_pushed_again_is_the_one_in_service(resolve):
    assert resolve((1, True, False), (2, True, False), again=(1,)) == [1]
    assert resolve((1, True, False), (2, True, False), (3, True, True), again=(1, 2)) == [2]


def test_a_blessed_model_that_was_not_pushed_is_not(resolve):
    assert resolve((1, True, False), (2, True, False), not_pushed=(2,)) == [1]
    assert resolve((1, True, False), not_pushed=(1,)) == []


def test_a_model_that_was_rolled_back_is_not(resolve):
    assert resolve((1, True, False), (2, True, True)) == [1]
    assert resolve((1, True, True)) == []


def test_a_model_whose_folder_is_gone_is_not_and_is_named(resolve, caplog, tmp_path):
    assert resolve((1, True, False), (2, True, False), (3, False, False), gone=(2, 3)) == [1]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"{tmp_path}/2 is gone: an older Model is used, or none"]


def test_without_models_there_is_none(resolve):
    assert resolve() == []
