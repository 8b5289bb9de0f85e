"""The Beam side: portions are spread over the workers, once, or twice where rows have to be left out.

What has to be left out is known only when all has been read: the rows of a file that turns out corrupt at its end, and
impressions that came before. So where a key is named, a first pass looks at the rows, and a second one writes them.
Where none is, the first pass writes, and only portions with a corrupt file are written again, without it.

Workers leave their reports in files, and so their errors: Beam would try again what raises, on some runners four times,
and then raise an error of another class with the sentence somewhere within it.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import apache_beam as beam
from absl import logging
from tfx.dsl.io import fileio

from components.impression_log_example_gen.columns import Column
from components.impression_log_example_gen.duplicates import find_duplicates
from components.impression_log_example_gen.log import LogError
from components.impression_log_example_gen.portion import Job, write_portion
from components.impression_log_example_gen.portions import Portion
from components.impression_log_example_gen.quarantine import estimate_rows
from components.impression_log_example_gen.report import Corrupt, Report

MakePipeline = Callable[[], beam.Pipeline]
_ROWS_PER_PARTITION = 5_000_000


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of all portions.

    Attributes:
        reports: Each portion's report.
        corrupt: The files that are left out.
        rows_of_file: The rows of each readable file.
    """

    reports: dict[Portion, Report]
    corrupt: dict[pathlib.Path, Corrupt]
    rows_of_file: dict[pathlib.Path, int]

    @functools.cached_property
    def corrupt_rows(self) -> dict[pathlib.Path, int]:
        """As how many rows each corrupt file counts; see `estimate_rows`."""
        sizes = {file: file.stat().st_size for file in (*self.rows_of_file, *self.corrupt)}
        seen = {file: corrupt.num_rows for file, corrupt in self.corrupt.items()}
        return estimate_rows(seen, self.rows_of_file, sizes)


def ingest(
    make_beam_pipeline: MakePipeline,
    portions: list[Portion],
    columns: tuple[Column, ...],
    key: Column | None,
    folder: str,
) -> Outcome:
    """Writes the Examples and the bad rows of all portions to files in a folder.

    Args:
        make_beam_pipeline: Returns a new Beam pipeline.
        portions: The portions.
        columns: The columns to take.
        key: The column that tells one impression from another, if any.
        folder: A folder that all workers reach.

    Raises:
        LogError: A file has changed or been removed: of several problems that of the first portion. No row has a key.
    """
    num_rows = sum(piece.size for portion in portions for piece in portion.pieces)
    keys, duplicates = (_make_folder(folder, name) if key else "" for name in ("keys", "duplicates"))
    first = Job(columns, folder, key, keys, num_partitions=1 + num_rows // _ROWS_PER_PARTITION)
    reports = run_portions(make_beam_pipeline, portions, functools.partial(write_portion, job=first), folder)
    corrupt = find_corrupt(reports)
    rows_of_file = rows_of_files(reports)
    if key:
        _require_keys(reports, key)
        _find_duplicates(make_beam_pipeline, first, reports, corrupt, duplicates)
    again = [portion for portion in portions if key or any(piece.file in corrupt for piece in portion.pieces)]
    if again:
        job = Job(columns, folder, key, duplicates=duplicates, corrupt=frozenset(corrupt))
        reports |= run_portions(make_beam_pipeline, again, functools.partial(write_portion, job=job), folder)
    require_unchanged(reports)
    return Outcome(reports, corrupt, {file: rows for file, rows in rows_of_file.items() if file not in corrupt})


def run_portions(
    make_beam_pipeline: MakePipeline, portions: list[Portion], write: Callable[[Portion], Report], folder: str
) -> dict[Portion, Report]:
    """Does something with each portion, and returns its report.

    Args:
        make_beam_pipeline: Returns a new Beam pipeline.
        portions: The portions.
        write: What a worker does with one.
        folder: A folder that all workers reach.

    Raises:
        LogError: One of them has raised it: of several that of the first portion.
    """
    folder = _make_folder(folder, uuid.uuid4().hex)
    with make_beam_pipeline() as pipeline:
        (
            pipeline
            | "Portions" >> beam.Create(portions)
            | "Distribute" >> beam.Reshuffle()
            | "Write" >> beam.ParDo(WritePortion(write, folder))
        )
    reports = {}
    for portion in portions:
        with fileio.open(_report_file(folder, portion)) as file:
            report = Report.from_json(file.read())
        if report.problem:
            raise LogError(report.problem)
        reports[portion] = report
    return reports


def find_corrupt(reports: Mapping[Portion, Report]) -> dict[pathlib.Path, Corrupt]:
    """Returns the files that a portion found corrupt."""
    corrupt: dict[pathlib.Path, Corrupt] = {}
    for report in reports.values():
        for file, found in report.corrupt.items():
            known = corrupt.setdefault(pathlib.Path(file), Corrupt(found.message, 0))
            known.num_rows = max(known.num_rows, found.num_rows)
    return corrupt


def require_unchanged(reports: Mapping[Portion, Report]) -> None:
    """Raises an error if a file is corrupt now that what was corrupt is left out.

    Raises:
        LogError: There is one.
    """
    for report in reports.values():
        for file in report.corrupt:
            raise LogError(f"{file} has changed while it was read: run again when its writer is done")


def _require_keys(reports: Mapping[Portion, Report], key: Column) -> None:
    num_keyed = sum(report.num_keyed for report in reports.values())
    num_keyless = sum(report.num_keyless for report in reports.values())
    if num_keyless and not num_keyed:
        raise LogError(
            f"log.key: none of the {num_keyless:,} good rows of the window has a value in a column {key.source}: "
            "correct the column's name, or leave log.key out"
        )
    if num_keyless:
        logging.warning(
            "%d of %d rows have no %s, and are taken for different impressions",
            num_keyless,
            num_keyed + num_keyless,
            key.source,
        )


def _find_duplicates(
    make_beam_pipeline: MakePipeline,
    job: Job,
    reports: dict[Portion, Report],
    corrupt: dict[pathlib.Path, Corrupt],
    folder: str,
) -> None:
    left_out = {
        portion.index: [report.ordinals_of_file[str(f)] for f in corrupt if str(f) in report.ordinals_of_file]
        for portion, report in reports.items()
    }
    with make_beam_pipeline() as pipeline:
        (
            pipeline
            | "Partitions" >> beam.Create(range(job.num_partitions))
            | "Distribute" >> beam.Reshuffle()
            | "Sort" >> beam.Map(find_duplicates, job.keys, left_out, folder)
        )


class WritePortion(beam.DoFn):
    """Writes one portion, and its report to a file."""

    def __init__(self, write: Callable[[Portion], Report], folder: str) -> None:
        super().__init__()
        self._write = write
        self._folder = folder

    def process(self, element: Portion) -> Iterable[Any]:
        """Writes one portion; nothing comes out.

        Args:
            element: The portion.
        """
        try:
            report = self._write(element)
        except LogError as error:
            report = Report(problem=str(error))
        unfinished = os.path.join(self._folder, uuid.uuid4().hex)
        with fileio.open(unfinished, "w") as file:
            file.write(report.to_json())
        fileio.rename(unfinished, _report_file(self._folder, element), overwrite=True)
        return ()


def rows_of_files(reports: dict[Portion, Report]) -> dict[pathlib.Path, int]:
    """Returns the rows of each file. A flat log's file of both splits was read twice."""
    rows: dict[tuple[pathlib.Path, str], int] = {}
    for portion, report in reports.items():
        for file, number in report.rows_of_file.items():
            key = (pathlib.Path(file), portion.split)
            rows[key] = rows.get(key, 0) + number
    files: dict[pathlib.Path, int] = {}
    for (path, _), number in rows.items():
        files[path] = max(files.get(path, 0), number)
    return files


def _report_file(folder: str, portion: Portion) -> str:
    return os.path.join(folder, f"report-{portion.index}")


def _make_folder(folder: str, name: str) -> str:
    path = os.path.join(folder, name)
    fileio.makedirs(path)
    return path
