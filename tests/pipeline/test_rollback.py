from __future__ import annotations

import os

import pytest
import tensorflow as tf
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.model_pusher.versions import Source, digest, list_versions, publish, read_source, version_path
from pipeline import rollback as module
from pipeline.config import PipelineConfig
from pipeline.rollback import RollbackError, roll_back


class Pushed:
    """A pipeline that has pushed some models, as TFX and the Pusher leave it."""

    def __init__(self, folder):
        self.config = PipelineConfig(name="shop", runs_dir=str(folder))
        self.home = folder / "shop"
        self.home.mkdir(exist_ok=True)
        self.serving = str(self.home / "serving")
        config = mlmd.ConnectionConfig()
        config.sqlite.filename_uri = str(self.home / "metadata.sqlite")
        config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        self.store = MetadataStore(config)
        self._types = {
            name: self.store.put_artifact_type(mlmd.ArtifactType(name=name)) for name in ("Model", "PushedModel")
        }
        context_type = self.store.put_context_type(mlmd.ContextType(name="pipeline"))
        (self.context,) = self.store.put_contexts([mlmd.Context(type_id=context_type, name="shop")])

    def push(self, content, folder=None):
        """Pushes a model; returns its version."""
        folder = self.home / "root" / (folder or content)
        saved_model = folder / "Format-Serving"
        for file in ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"):
            (saved_model / file).parent.mkdir(parents=True, exist_ok=True)
            (saved_model / file).write_text(content)
        if not self.store.get_artifacts_by_uri(str(folder)):
            self.store.put_artifacts([mlmd.Artifact(type_id=self._types["Model"], uri=str(folder))])
        (model,) = self.store.get_artifacts_by_uri(str(folder))
        version = publish(str(saved_model), self.serving, Source(model.id, str(folder), digest(str(saved_model))))
        pushed = mlmd.Artifact(type_id=self._types["PushedModel"], uri=str(folder))
        pushed.custom_properties["pushed_version"].string_value = str(version)
        self.store.put_artifacts([pushed])
        return version

    def in_service(self):
        with open(f"{version_path(self.serving, list_versions(self.serving)[-1])}/saved_model.pb") as content:
            return content.read()

    def taken_back(self):
        """Contents of the models that are marked."""
        models = self.store.get_artifacts_by_type("Model")
        return sorted(model.uri.rpartition("/")[2] for model in models if "rolled_back" in model.custom_properties)


@pytest.fixture
def shop(tmp_path):
    return Pushed(tmp_path)


def test_the_version_before_becomes_the_newest_and_that_is_recorded(shop):
    first, second = shop.push("a"), shop.push("b")
    done = roll_back(shop.config)
    assert (done.restored_from, done.taken_back) == (first, (second,))
    assert list_versions(shop.serving) == [first, second, done.version]
    assert shop.in_service() == "a"
    assert shop.taken_back() == ["b"]
    source = read_source(shop.serving, done.version)
    assert (source.model_uri, source.restored_from) == (str(shop.home / "root" / "a"), first)
    (execution,) = shop.store.get_executions_by_type("Rollback")
    assert execution.custom_properties["restored_from"].string_value == str(first)
    assert execution.custom_properties["taken_back"].string_value == str(second)
    assert shop.store.get_executions_by_context(shop.context)[0].id == execution.id
    events = shop.store.get_events_by_execution_ids([execution.id])
    artifacts = {event.type: shop.store.get_artifacts_by_id([event.artifact_id])[0] for event in events}
    assert artifacts[mlmd.Event.INPUT].custom_properties["pushed_version"].string_value == str(first)
    made = artifacts[mlmd.Event.OUTPUT].custom_properties
    assert made["pushed_version"].string_value == str(done.version)
    assert made["pushed_destination"].string_value == version_path(shop.serving, done.version)


def test_a_second_rollback_goes_further_back_and_a_third_finds_nothing(shop):
    for content in ("a", "b", "c"):
        shop.push(content)
    roll_back(shop.config)
    assert shop.in_service() == "b"
    roll_back(shop.config)
    assert shop.in_service() == "a"
    assert shop.taken_back() == ["b", "c"]
    with pytest.raises(RollbackError, match=r"no version to go back to in .*all 5 hold"):
        roll_back(shop.config)
    assert shop.in_service() == "a"


def test_the_only_version_has_none_to_go_back_to(shop):
    shop.push("a")
    with pytest.raises(RollbackError, match=r"no version to go back to in .*: \d+ is the only one"):
        roll_back(shop.config)
    assert shop.in_service() == "a"


def _forget_the_models(shop):
    """Leaves a metadata store that knows none of the versions' models."""
    for model in (models := shop.store.get_artifacts_by_type("Model")):
        model.uri += ".before"
    shop.store.put_artifacts(models)


def _forget_the_sources(shop):
    """Leaves versions as another program puts them there."""
    for version in list_versions(shop.serving):
        os.remove(os.path.join(version_path(shop.serving, version), "assets.extra/source.json"))


@pytest.mark.parametrize("forget", [_forget_the_models, _forget_the_sources])
def test_it_goes_further_back_where_the_metadata_store_does_not_know_the_models(shop, forget):
    for content in ("a", "b", "c", "d"):
        shop.push(content)
    forget(shop)
    for expected in ("c", "b", "a"):
        roll_back(shop.config)
        assert shop.in_service() == expected
    with pytest.raises(RollbackError, match=r"no version to go back to"):
        roll_back(shop.config)
    assert shop.taken_back() == []


def test_a_model_that_was_named_after_it_was_taken_back_can_be_gone_back_to(shop):
    first, second = shop.push("a"), shop.push("b")
    _forget_the_models(shop)
    roll_back(shop.config, to=first)
    roll_back(shop.config, to=second)
    shop.push("c")
    roll_back(shop.config)
    assert shop.in_service() == "b"


def test_a_version_can_be_named_even_one_that_was_taken_back(shop):
    first, second = shop.push("a"), shop.push("b")
    shop.push("c")
    roll_back(shop.config, to=first)
    assert (shop.in_service(), shop.taken_back()) == ("a", ["b", "c"])
    roll_back(shop.config, to=second)
    assert shop.in_service() == "b"
    assert "b" not in shop.taken_back()


def test_a_version_that_is_not_there_is_an_error_that_lists_what_is(shop):
    first, second = shop.push("a"), shop.push("b")
    with pytest.raises(RollbackError, match=f"no version 5 before the newest, {second}; there are: {first}"):
        roll_back(shop.config, to=5)
    assert list_versions(shop.serving) == [first, second]
    assert shop.taken_back() == []


@pytest.mark.parametrize(
    "gone", ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"]
)
def test_a_version_that_cannot_be_served_is_passed_over_and_cannot_be_named(shop, gone):
    shop.push("a")
    second = shop.push("b")
    shop.push("c")
    os.remove(os.path.join(version_path(shop.serving, second), gone))
    with pytest.raises(RollbackError, match=rf"version {second} cannot be served: .*/{second} is no whole SavedModel"):
        roll_back(shop.config, to=second)
    assert (shop.in_service(), shop.taken_back()) == ("c", [])
    roll_back(shop.config)
    assert shop.in_service() == "a"


def test_an_empty_folder_is_nothing_to_go_back_to(shop):
    only = shop.push("a")
    os.mkdir(version_path(shop.serving, only - 1))
    with pytest.raises(RollbackError, match=r"no version to go back to .* or cannot be served; `--to"):
        roll_back(shop.config)
    assert (list_versions(shop.serving), shop.taken_back()) == ([only - 1, only], [])


def test_without_a_metadata_store_nothing_is_done(shop):
    shop.push("a"), shop.push("b")
    (shop.home / "metadata.sqlite").unlink()
    with pytest.raises(RollbackError, match=r"no metadata store .*metadata.sqlite"):
        roll_back(shop.config)
    assert shop.in_service() == "b"


def test_a_damaged_metadata_store_is_named_and_nothing_is_done(shop):
    shop.push("a"), shop.push("b")
    (shop.home / "metadata.sqlite").write_text("nonsense" * 1000)
    with pytest.raises(RollbackError, match=rf"^the metadata store {shop.home}/metadata.sqlite is damaged"):
        roll_back(shop.config)
    assert shop.in_service() == "b"


def _begin_the_store_anew(shop):
    """Leaves what stands there once the metadata store was moved away: versions, and a store that counts from 1."""
    (shop.home / "metadata.sqlite").rename(shop.home / "metadata.before")
    shop.__init__(shop.home.parent)


def test_another_model_of_the_same_id_and_folder_is_not_taken_for_the_one_in_a_version(shop):
    first = shop.push("a", folder="model")
    _begin_the_store_anew(shop)
    second = shop.push("b", folder="model")
    assert read_source(shop.serving, first).model_id == read_source(shop.serving, second).model_id
    done = roll_back(shop.config)
    assert (shop.in_service(), done.taken_back) == ("a", (second,))
    (model,) = shop.store.get_artifacts_by_type("Model")  # b's: no run may push it again
    assert "rolled_back" in model.custom_properties


def test_a_store_that_no_run_has_pushed_with_can_record_a_rollback(shop):
    first = shop.push("a")
    shop.push("b")
    (shop.home / "metadata.sqlite").rename(shop.home / "metadata.before")
    config = mlmd.ConnectionConfig()
    config.sqlite.filename_uri = str(shop.home / "metadata.sqlite")
    config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    store = MetadataStore(config)
    done = roll_back(shop.config)
    assert (done.restored_from, shop.in_service()) == (first, "a")
    (pushed,) = store.get_artifacts_by_type("PushedModel")
    assert pushed.custom_properties["pushed_version"].string_value == str(done.version)


@pytest.mark.parametrize("named", [True, False])
def test_a_copy_of_a_rollback_that_is_over_is_not_ended_again(shop, named):
    first, _ = shop.push("a"), shop.push("b")
    shop.push("c")
    roll_back(shop.config)
    assert shop.in_service() == "b"
    _begin_the_store_anew(shop)
    done = roll_back(shop.config, to=first if named else None)
    assert (done.restored_from, shop.in_service()) == (first, "a")


def test_another_version_may_be_named_after_a_rollback_was_cut_off(shop, monkeypatch):
    first = shop.push("a")
    for content in ("b", "c"):
        shop.push(content)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            roll_back(shop.config)
    roll_back(shop.config, to=first)
    assert (shop.in_service(), shop.taken_back()) == ("a", ["b", "c"])


@pytest.mark.parametrize("step", ["publish", "_record"])
def test_a_rollback_that_is_cut_off_is_ended_by_the_next(shop, monkeypatch, step):
    shop.push("a")
    second = shop.push("b")
    shop.push("c")
    with monkeypatch.context() as patch:
        patch.setattr(module, step, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            roll_back(shop.config)
    done = roll_back(shop.config)
    assert done.restored_from == second
    assert shop.in_service() == "b"
    assert shop.taken_back() == ["c"]
    assert len(list_versions(shop.serving)) == 4
    assert len(shop.store.get_executions_by_type("Rollback")) == 1


def test_a_serving_folder_that_cannot_be_written_is_said(shop, monkeypatch):
    shop.push("a")
    shop.push("b")
    with monkeypatch.context() as patch:
        error = tf.errors.PermissionDeniedError(None, None, "serving/.1; Permission denied")
        patch.setattr(module, "publish", lambda *_: (_ for _ in ()).throw(error))
        with pytest.raises(RollbackError, match=rf"cannot write to {shop.home}: serving/.1; Permission denied; call"):
            roll_back(shop.config)
    roll_back(shop.config)
    assert shop.in_service() == "a"
