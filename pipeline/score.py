"""Scores a whole log with an exported model, on Apache Beam, to Parquet."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import glob
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import NoReturn

import apache_beam as beam
from tensorflow_metadata.proto.v0 import schema_pb2

from components.impression_log_example_gen.executor import put_aside
from components.impression_log_example_gen.ingest import (
    Outcome,
    find_corrupt,
    require_unchanged,
    rows_of_files,
    run_portions,
)
from components.impression_log_example_gen.log import LogError, find_days, find_files, format_of, is_partitioned
from components.impression_log_example_gen.portions import Portion, cut, whole
from pipeline.beam import beam_args
from pipeline.config import PipelineConfig
from pipeline.lock import LockedError, hold_lock
from pipeline.predict import Model, ModelError, load_model, some_of
from pipeline.score_portion import KEY, ScorePortion
from pipeline.signals import ended_by_signals
from schemas.features import FeatureSpec, load_spec
from schemas.tfmd import SERVING, features_in, make_schema

QUARANTINE = "_quarantine.jsonl"  # readers of a folder of Parquet files pass over a name that begins so

_SPLIT = "score"
_OWN = ("file", "row", "key", "ctr")  # columns of what is written


class ScoreError(ValueError):
    """A log that is not scored; the message is one sentence."""


@dataclasses.dataclass(frozen=True)
class Scored:
    """What came of a log.

    Attributes:
        rows: Number of rows with a ctr.
        bad_rows: Number of rows without.
        reasons: The most frequent reasons for that, in words.
        absent: The columns, as the log should name them, that the model takes, or the config names as the key or the
            timestamp, and no row with a ctr has a value in.
    """

    rows: int
    bad_rows: int
    reasons: str
    absent: tuple[str, ...] = ()

    def hint(self) -> str:
        """Returns what may be wrong with the log's names, in a sentence; empty where every column had a value once."""
        if not self.absent:
            return ""
        return f"{some_of(list(self.absent))}: no value in any of the {self.rows:,} rows; see log.columns and log.key"


def score_log(config: PipelineConfig, log: pathlib.Path, out: pathlib.Path, model: pathlib.Path) -> Scored:
    """Scores every row of a log.

    Args:
        config: The feature spec, how the log is read, and Beam's flags.
        log: A folder of the forms that the ingestion takes, or one file of such.
        out: The folder to write, which is there when all is done. In it are Parquet files with the columns `file`
            (relative to the log), `row` (counted from 1; the line of a text file), `key` (text, where `log.key` is
            set), the spec's timestamp in seconds (where it has one) and `ctr` float32; and `_quarantine.jsonl`.
        model: The SavedModel's folder. All workers reach it, the log and the folder of `out`.

    Raises:
        LogError: The log cannot be used.
        ModelError: The model cannot be used, or its features are not the spec's.
        ScoreError: `out` exists; the spec's timestamp has the name of another column that is written; there are too
            many bad rows: then their file is beside it; or no row has any of the model's columns.
    """
    if os.path.lexists(out):
        raise ScoreError(f"{out} exists: name another folder, or remove it")
    spec = load_spec(config.features)
    if spec.timestamp in _OWN:
        raise ScoreError(
            f"the spec's timestamp {spec.timestamp} has the name of one of the columns that are written, "
            f"{', '.join(_OWN)}: give it another in the spec, and name the log's in log.columns"
        )
    _check_features(load_model(model), spec, model)
    if config.beam.runner != "local":
        log = log.absolute()  # the workers are in other folders; here, what is told names the path as it was given
    portions = plan(log)
    with _unfinished_folder(out.absolute()) as unfinished:
        work = ScorePortion.for_log(config, spec, log, unfinished, model)
        outcome = _score_portions(config, spec, portions, work)
        done = unfinished / "done"
        done.mkdir()
        counts = put_aside(outcome, str(done / QUARANTINE))
        shards = [shard for report in outcome.reports.values() for shard in report.shards]
        num_rows = sum(number for _, number in shards)
        if counts.rows > config.log.max_bad_fraction * (num_rows + counts.rows):
            beside = out.with_name(f"{out.name}.quarantine.jsonl")
            (done / QUARANTINE).replace(beside)
            raise ScoreError(
                f"{counts.rows:,} of {num_rows + counts.rows:,} rows are bad, more than log.max_bad_fraction = "
                f"{config.log.max_bad_fraction:.2%}: {counts.top()}; all are in {beside}"
            )
        absent = _find_absent(outcome, work, config.log.columns) if num_rows else ()
        for index, (path, _) in enumerate(shards):
            os.rename(path, done / f"part-{index:05d}-of-{len(shards):05d}.parquet")
        os.rename(done, out)
        return Scored(num_rows, counts.rows, counts.top(), absent)


@contextlib.contextmanager
def _unfinished_folder(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a new hidden folder beside `out`, which is gone at the end; what killed processes have left of it, too."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.{'[0-9a-f]' * 32}"):
        with contextlib.suppress(LockedError), hold_lock(left):
            shutil.rmtree(left, ignore_errors=True)
    name = uuid.uuid4().hex
    unlocked, unfinished = out.with_name(f".{name}.{out.name}"), out.with_name(f".{out.name}.{name}")

    def remove() -> None:
        for folder in (unlocked, unfinished):
            shutil.rmtree(folder, ignore_errors=True)

    def leave(number: int, _: FrameType | None) -> NoReturn:
        remove()
        os._exit(128 + number)  # at an exception Beam would wait until its workers are done

    unlocked.mkdir(parents=True)
    try:
        with hold_lock(unlocked), ended_by_signals(leave):
            unlocked.rename(unfinished)  # now that others who find it see that it is in use
            yield unfinished
    finally:
        remove()


def plan(log: pathlib.Path) -> list[Portion]:
    """Returns a log's portions, in its order.

    Raises:
        LogError: It has no files.
    """
    if log.is_file():
        if format_of(log) is None:
            raise LogError(f"{log} is no file of a log: its name must end as those that `ctr run` reads do")
        files: tuple[pathlib.Path, ...] = (log,)
    elif is_partitioned(log):
        files = tuple(file for day in find_days(log) for file in day.files)
    else:
        files = find_files(log)
    return [Portion(_SPLIT, index, pieces) for index, pieces in enumerate(cut([whole(file) for file in files]))]


def _check_features(model: Model, spec: FeatureSpec, directory: pathlib.Path) -> None:
    of_model = {name: _form(feature) for name, feature in model.schema.items()}
    wanted = {name: _form(feature) for name, feature in features_in(make_schema(spec), SERVING).items()}
    differing = [
        f"{name} is {of_model.get(name, 'not there')} for the model, and {wanted.get(name, 'not there')} in the spec"
        for name in {**of_model, **wanted}
        if of_model.get(name) != wanted.get(name)
    ]
    if differing:
        raise ModelError(
            f"{directory} takes other features than those of {spec.name}: {'; '.join(differing)}: name the config that "
            "the model was trained with"
        )


def _form(feature: schema_pb2.Feature) -> str:
    kind = {schema_pb2.INT: "int64", schema_pb2.FLOAT: "float32", schema_pb2.BYTES: "string"}[feature.type]
    return kind if feature.value_count.max == 1 else f"a list of {kind}"


def _find_absent(outcome: Outcome, work: ScorePortion, sources: Mapping[str, str]) -> tuple[str, ...]:
    wanted = [column for column in work.columns if column.name != work.timestamp]
    valued = {name for report in outcome.reports.values() for name in report.valued}
    absent = [column.source for column in wanted if column.name not in valued]
    if valued.isdisjoint(column.name for column in wanted):
        raise ScoreError(
            f"no row has any of the model's columns, which are sought as {some_of(absent)}: see log.columns, "
            "which says how the log names them"
        )
    # What is to be scored may well have none; but then nobody says how it is named.
    named = sources.get(work.timestamp or "")
    if named and work.timestamp not in valued:
        absent.append(named)
    if work.key and KEY not in valued:
        absent.append(work.key)
    return tuple(dict.fromkeys(absent))


def _score_portions(config: PipelineConfig, spec: FeatureSpec, portions: list[Portion], work: ScorePortion) -> Outcome:
    """Scores once, and portions with a corrupt file again, without it: as the ingestion leaves it out as a whole."""
    make_pipeline = functools.partial(beam.Pipeline, argv=beam_args(config.beam))
    reports = run_portions(make_pipeline, portions, work, work.folder)
    corrupt = find_corrupt(reports)
    rows_of_file = rows_of_files(reports)
    again = [portion for portion in portions if any(piece.file in corrupt for piece in portion.pieces)]
    if again:
        work = dataclasses.replace(work, corrupt=frozenset(corrupt))
        reports |= run_portions(make_pipeline, again, work, work.folder)
    require_unchanged(reports)
    return Outcome(reports, corrupt, {file: rows for file, rows in rows_of_file.items() if file not in corrupt})
