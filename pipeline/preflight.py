"""What can be checked within a second, before the many seconds that importing TFX or TensorFlow takes."""

from __future__ import annotations

import difflib
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence

from components.evaluation.derived import derived_columns
from components.impression_log_example_gen.columns import find_columns
from components.impression_log_example_gen.log import LogError, find_days, is_partitioned, parse_day
from components.impression_log_example_gen.window import split_days
from pipeline.beam import BeamConfig
from pipeline.beam_check import beam_problems, folders_of_workers
from pipeline.config import ConfigError, PipelineConfig
from pipeline.metadata_file import find_damage
from pipeline.schema_file import find_schema
from schemas.features import FeatureSpec, load_spec
from trainer.cluster import WorkersError, check_batch_size, read_chiefs_cluster


class PreflightError(ValueError):
    """A run that cannot succeed; one line for each reason."""


def home(config: PipelineConfig) -> pathlib.Path:
    """Returns the pipeline's folder."""
    return pathlib.Path(config.runs_dir) / config.name


def check(config: PipelineConfig) -> None:
    """Makes the pipeline's folder, and checks what the run will need.

    Raises:
        PreflightError: The run cannot succeed.
    """
    problems = [*_spec_problems(config), *_log_problems(config), *_worker_problems(config)]
    problems += beam_problems(config.beam, folders_of_workers(config))
    # Last, so that a run that cannot start leaves no folder behind.
    _stop_at(problems or _folder_problems(config))


def check_spec(config: PipelineConfig) -> None:
    """Checks the feature spec, and what the settings say of its columns.

    Raises:
        PreflightError: Something is wrong with it.
    """
    _stop_at(_spec_problems(config))


def check_columns(config: PipelineConfig) -> None:
    """Checks that the feature spec can be loaded, and has the columns that `log.columns` names.

    Raises:
        PreflightError: It cannot, or has not.
    """
    _stop_at(_column_problems(config, _load_spec(config)))


def _stop_at(problems: Iterable[str]) -> None:
    told = "\n".join(problems)
    if told:
        raise PreflightError(told)


def _load_spec(config: PipelineConfig) -> FeatureSpec:
    """Returns the feature spec.

    Raises:
        PreflightError: It cannot be loaded.
    """
    try:
        return load_spec(config.features)
    except ValueError as error:
        raise PreflightError(str(error)) from error


def check_beam(config: BeamConfig, folders: Mapping[str, str]) -> None:
    """Checks that the Beam runner can be used.

    Args:
        config: Where the Beam steps run.
        folders: What the workers read and write, by the names that the user knows it by.

    Raises:
        PreflightError: It cannot.
    """
    _stop_at(beam_problems(config, folders))


def find_latest_model(config: PipelineConfig) -> pathlib.Path:
    """Returns the folder of the newest model that the pipeline has pushed: the highest version, as in TF Serving.

    Raises:
        PreflightError: It has pushed none.
    """
    serving = home(config) / "serving"
    versions = [path for path in serving.glob("*") if path.name.isdecimal() and path.is_dir()]
    if not versions:
        raise PreflightError(f"no model in {serving}: `ctr run` pushes one there once it is blessed")
    return max(versions, key=lambda path: int(path.name))


def _spec_problems(config: PipelineConfig) -> Iterator[str]:
    try:
        spec = _load_spec(config)
    except PreflightError as error:
        yield str(error)
    else:
        yield from _slice_problems(config, spec)
        yield from _column_problems(config, spec)
        yield from _drift_problems(config, spec)
        yield from _id_dropout_problems(config, spec)
        try:
            find_schema(config, spec)
        except ConfigError as error:
            yield f"schema_file: {error}"


def _slice_problems(config: PipelineConfig, spec: FeatureSpec) -> Iterator[str]:
    floats = [feature.name for feature in spec.features if feature.dtype == "float32"]
    names = [*(feature.name for feature in spec.features if feature.name not in floats), *derived_columns(spec)]
    for index, columns in enumerate(config.evaluation.slices):
        for column in columns:
            if column in floats:
                yield (
                    f"evaluation.slices[{index}]: {column} is not a whole number, and nearly every impression would be "
                    "a slice of its own: slice by an id or a whole number, as by a column with the range that it is in"
                )
            elif column not in names:
                yield f"evaluation.slices[{index}]: {config.features} has no feature {column}; {_hint(column, names)}"


def _column_problems(config: PipelineConfig, spec: FeatureSpec) -> Iterator[str]:
    names = [column.name for column in find_columns(spec)]
    for column in config.log.columns:
        if column not in names:
            yield f"log.columns: {config.features} has no column {column}; {_hint(column, names)}"


def _drift_problems(config: PipelineConfig, spec: FeatureSpec) -> Iterator[str]:
    names = [*(feature.name for feature in spec.features), spec.label.name]
    for name in config.drift.features:
        if name not in names:
            yield f"drift.features: {config.features} has no feature {name}; {_hint(name, names)}"


def _id_dropout_problems(config: PipelineConfig, spec: FeatureSpec) -> Iterator[str]:
    names = [field.name for field in spec.id_fields]
    for name in config.model.id_dropout_of:
        if name not in names:
            yield f"model.id_dropout_of: {config.features} has no id feature {name}; {_hint(name, names)}"


def _hint(name: str, names: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {nearest[0]}?" if nearest else f"they are {', '.join(names)}"


def _log_problems(config: PipelineConfig) -> Iterator[str]:
    path = pathlib.Path(config.log.path)
    try:
        days = find_days(path) if is_partitioned(path) else None
    except (LogError, OSError) as error:
        # The first thing that anybody runs into.
        is_movielens = config.features == "schemas.movielens:MOVIELENS" and not path.exists()
        yield f"log.path: {error}" + (f" (`ctr data movielens --out {path}` writes it)" if is_movielens else "")
        return
    if days is None and config.transform.analyzer_cache:
        yield (
            f"transform.analyzer_cache: the impression log {path} is flat, no file has rows of one day only: write it "
            "in day=YYYY-MM-DD folders, or leave the cache off"
        )
    try:
        as_of = parse_day(config.log.as_of, "log.as_of") if config.log.as_of else None
    except LogError:
        yield f"log.as_of: there is no day {config.log.as_of}"
        return
    try:
        if days is not None:  # of a flat log only its rows tell
            split_days(days, config.log.eval_days, config.log.train_days, as_of)
    except LogError as error:
        yield f"log.{'as_of' if as_of else 'eval_days'}: {error}"


def _worker_problems(config: PipelineConfig) -> Iterator[str]:
    """Yields what the Trainer would find out, after all that comes before it, and with the other workers waiting."""
    try:
        cluster = read_chiefs_cluster(os.environ.get("TF_CONFIG"))
        for training in (config.training, config.training.of_warm()):
            check_batch_size(training.batch_size, len(cluster.addresses) if cluster else 1)
    except WorkersError as error:
        yield str(error)


def _folder_problems(config: PipelineConfig) -> Iterator[str]:
    if "://" in config.runs_dir:
        yield f"runs_dir {config.runs_dir}: `ctr run` writes to this machine, so it must be a folder here"
        return
    home_folder = home(config)
    for folder in (home_folder, home_folder / "logs"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Permission bits do not tell of a read-only disk, nor an empty file of a full one.
            with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
                file.write(bytes(4096))
        except OSError as error:
            yield f"runs_dir: cannot write to {folder}: {error.strerror}"
            return
    if damage := find_damage(home_folder / "metadata.sqlite"):
        yield damage
