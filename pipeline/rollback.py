"""Takes the model in service back: the version before it becomes the newest one."""

from __future__ import annotations

import dataclasses
import datetime
import pathlib

import tensorflow as tf
from ml_metadata import MetadataStore, errors
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.types.standard_artifacts import PushedModel
from tfx.utils import path_utils

from components.model_pusher import ROLLED_BACK
from components.model_pusher.versions import (
    Source,
    digest,
    is_servable,
    list_versions,
    publish,
    read_source,
    version_path,
)
from pipeline.config import PipelineConfig
from pipeline.metadata_file import find_damage


class RollbackError(RuntimeError):
    """There is nothing to go back to; the message says what there is."""


@dataclasses.dataclass(frozen=True)
class Rollback:
    """What a rollback came to.

    Attributes:
        version: The newest version now.
        restored_from: The version that it is a copy of.
        model_uri: The model in it.
        taken_back: The versions whose models no run pushes, compares with or goes on from any more.
    """

    version: int
    restored_from: int
    model_uri: str
    taken_back: tuple[int, ...]


def roll_back(config: PipelineConfig, to: int | None = None) -> Rollback:
    """Makes an earlier version the newest one again, as a copy, and records that in the metadata store.

    Model servers take the highest version, so the copy gets a higher one than all. The models of the versions that it
    replaces are marked in the metadata store. The order is: mark, publish, record. Cut off in between, a second call
    ends what the first has begun.

    Args:
        config: The pipeline's settings. The caller holds the pipeline's lock.
        to: The version to go back to; None for the newest one that can be served and holds another model than the one
            in service, and none that was taken back before.

    Raises:
        RollbackError: There is no such version, or it cannot be served; there is no metadata store, or it is damaged;
            or they cannot be written.
    """
    try:
        return _roll_back(config, to)
    except (OSError, tf.errors.OpError, errors.StatusError) as error:
        said = " ".join(str(getattr(error, "message", "") or error).split())
        raise RollbackError(
            f"cannot write to {pathlib.Path(config.runs_dir, config.name)}: {said}; call `ctr rollback` again once it "
            "can be written: it ends what it has begun"
        ) from error


def _roll_back(config: PipelineConfig, to: int | None) -> Rollback:
    home = pathlib.Path(config.runs_dir).resolve() / config.name
    serving = str(home / "serving")
    store = _open_store(home / "metadata.sqlite")
    versions = list_versions(serving)
    if not versions:
        raise RollbackError(f"no version in {serving}")
    newest = read_source(serving, versions[-1])
    begun = newest.restored_from if newest and _find_push(store, versions[-1]) is None else None
    replaced = [read_source(serving, version) for version in versions[:-1] if begun and version > begun]
    # A store that has marked none of them is newer than the copy: that is not this rollback's.
    if newest and begun and to in (None, begun) and any(_is_taken_back(store, source) for source in replaced if source):
        target, version, source = begun, versions[-1], newest
    else:
        target = _choose(store, serving, versions, to)
        source = read_source(serving, target) or Source(0, "", "")
        replaced = [read_source(serving, version) for version in versions if version > target]
        _mark(store, [found for found in replaced if found], keep=source)
        copy = dataclasses.replace(source, restored_from=target)
        version = publish(version_path(serving, target), serving, copy)
    taken_back = tuple(v for v in versions if target < v < version)
    result = Rollback(version, target, source.model_uri, taken_back)
    _record(store, config.name, serving, result)
    return result


def _open_store(file: pathlib.Path) -> MetadataStore:
    if not file.is_file():
        raise RollbackError(f"no metadata store {file}: has the pipeline run with this runs_dir?")
    if damage := find_damage(file):
        raise RollbackError(damage)
    config = mlmd.ConnectionConfig()
    config.sqlite.filename_uri = str(file)
    return MetadataStore(config)


def _choose(store: MetadataStore, serving: str, versions: list[int], to: int | None) -> int:
    """Returns the version to go back to."""
    *earlier, newest = versions
    if to is not None:
        if to not in earlier:
            known = ", ".join(map(str, earlier)) or "none"
            raise RollbackError(f"no version {to} before the newest, {newest}; there are: {known}")
        if not is_servable(serving, to):
            raise RollbackError(f"version {to} cannot be served: {version_path(serving, to)} is no whole SavedModel")
        return to
    if not earlier:
        raise RollbackError(f"no version to go back to in {serving}: {newest} is the only one")
    sources = {version: read_source(serving, version) for version in versions}
    models = _distinguish(sources)
    passed_over = {models[newest], *_taken_back(sources, models)}
    for version in (version for version in reversed(earlier) if is_servable(serving, version)):
        source = sources[version]
        if models[version] not in passed_over and not (source and _is_taken_back(store, source)):
            return version
    raise RollbackError(
        f"no version to go back to in {serving}: all {len(versions)} hold the model in service, or one that was taken "
        "back before, or cannot be served; `--to VERSION` takes any that can be"
    )


def _distinguish(sources: dict[int, Source | None]) -> dict[int, str]:
    """Returns what tells each version's model from others: its digest, or the version where only that is known."""
    models: dict[int, str] = {}
    for version, source in sources.items():  # lowest first: a copy comes after what it is a copy of
        known = source and (source.sha256 or models.get(source.restored_from or 0))
        models[version] = known or str(version)
    return models


def _taken_back(sources: dict[int, Source | None], models: dict[int, str]) -> set[str]:
    """Returns the models that rollbacks have taken back, by the copies that they have made.

    The metadata store's marks alone would not do: it may be another one than the versions were pushed with.
    """
    found: set[str] = set()
    for version, source in sources.items():  # lowest first: what was taken back may have been restored later
        if source and source.restored_from:
            found |= {models[replaced] for replaced in sources if source.restored_from < replaced < version}
            found.discard(models[version])
    return found


def _models(store: MetadataStore, source: Source) -> list[mlmd.Artifact]:
    """Returns the Model artifact of a source; none where this metadata store does not know it.

    A store that was begun anew counts from 1 again, and TFX makes the same folders anew: an artifact of the same id and
    folder may be another model.
    """
    return [
        model
        for model in store.get_artifacts_by_id([source.model_id])
        if model.uri == source.model_uri and _is_in(path_utils.serving_model_path(model.uri), source)
    ]


def _is_in(saved_model: str, source: Source) -> bool:
    """Returns whether a folder has the model of a source, as far as that can be told."""
    return not source.sha256 or not pathlib.Path(saved_model).is_dir() or digest(saved_model) == source.sha256


def _is_taken_back(store: MetadataStore, source: Source) -> bool:
    return any(ROLLED_BACK in model.custom_properties for model in _models(store, source))


def _mark(store: MetadataStore, sources: list[Source], keep: Source) -> None:
    """Marks the models as taken back, and the one to keep as not."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    models = {model.id: model for source in sources for model in _models(store, source)}
    for model in models.values():
        model.custom_properties[ROLLED_BACK].string_value = now
    for model in _models(store, keep):
        model.custom_properties.pop(ROLLED_BACK, None)
        models[model.id] = model
    store.put_artifacts(list(models.values()))


def _find_push(store: MetadataStore, version: int) -> mlmd.Artifact | None:
    """Returns the PushedModel artifact of a version."""
    pushed = [
        artifact
        for artifact in store.get_artifacts_by_type("PushedModel")
        if artifact.custom_properties["pushed_version"].string_value == str(version)
    ]
    return pushed[-1] if pushed else None


def _record(store: MetadataStore, pipeline: str, serving: str, result: Rollback) -> None:
    """Writes an execution of type Rollback, with the PushedModel that was restored and the one that it has made."""
    execution = mlmd.Execution(
        type_id=store.put_execution_type(mlmd.ExecutionType(name="Rollback")),
        last_known_state=mlmd.Execution.COMPLETE,
    )
    execution.custom_properties["restored_from"].string_value = str(result.restored_from)
    execution.custom_properties["taken_back"].string_value = ",".join(map(str, result.taken_back))
    before = _find_push(store, result.restored_from)
    pushed = mlmd.Artifact(
        type_id=_type_of_pushed(store),
        uri=before.uri if before else version_path(serving, result.restored_from),
        state=mlmd.Artifact.LIVE,
    )
    pushed.custom_properties["pushed"].int_value = 1
    pushed.custom_properties["pushed_destination"].string_value = version_path(serving, result.version)
    pushed.custom_properties["pushed_version"].string_value = str(result.version)
    events = [(pushed, mlmd.Event(type=mlmd.Event.OUTPUT, path=_path("pushed_model")))]
    if before:
        events.insert(0, (before, mlmd.Event(type=mlmd.Event.INPUT, path=_path("restored"))))
    try:
        contexts = [store.get_context_by_type_and_name("pipeline", pipeline)]
    except errors.NotFoundError:
        contexts = []
    store.put_execution(execution, events, [context for context in contexts if context])


def _type_of_pushed(store: MetadataStore) -> int:
    try:
        return int(store.get_artifact_type(PushedModel.TYPE_NAME).id)
    except errors.NotFoundError:  # of a store that was begun anew, with which no run has pushed yet
        return int(store.put_artifact_type(PushedModel().artifact_type))


def _path(key: str) -> mlmd.Event.Path:
    return mlmd.Event.Path(steps=[mlmd.Event.Path.Step(key=key), mlmd.Event.Path.Step(index=0)])
