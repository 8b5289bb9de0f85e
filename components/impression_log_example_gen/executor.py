"""Writes the Examples of a window of an impression log, and puts its bad rows aside."""

from __future__ import annotations

import collections
import hashlib
import json
import os
import pathlib
import uuid
from typing import Any

from absl import logging
from tfx.components.util import examples_utils
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact

from components.arrow_examples.files import arrow_file
from components.impression_log_example_gen.columns import Column, find_columns
from components.impression_log_example_gen.ingest import Outcome, ingest
from components.impression_log_example_gen.log import LogError
from components.impression_log_example_gen.portions import plan_portions
from components.impression_log_example_gen.quarantine import CORRUPT, BadRow, Count, Counts
from components.impression_log_example_gen.window import Window
from schemas.features import load_spec

_ROWS_TO_JUDGE = 1_000  # as many as a split needs for its own share of bad rows to be looked at


class Executor(BaseBeamExecutor):
    """Reads the days that the driver has chosen."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the splits `train` and `eval`, and the quarantine file.

        Args:
            input_dict: Empty.
            output_dict: `examples`, one Examples artifact. It gets the string properties `num_examples` and `days`,
                JSON by split, `num_rows`, `quarantined`, JSON of numbers by reason, `quarantine`, the file of the bad
                rows, empty if there are none, and `input_fingerprint`.
            exec_properties: The component's parameters, and the driver's `window` and `input_fingerprint`.

        Raises:
            LogError: The log cannot be used. Nothing is in the artifact's folder then; the quarantine file is there.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        window = Window.from_json(exec_properties["window"], pathlib.Path(exec_properties["log_path"]))
        columns = _wanted_columns(exec_properties, is_partitioned=window.is_partitioned)
        key = exec_properties.get("key")
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        examples.split_names = artifact_utils.encode_split_names(list(window.splits))

        # The names are new and the splits may exist, because an attempt may have been killed before.
        staging = os.path.join(self._get_tmp_dir(), uuid.uuid4().hex)
        fileio.makedirs(staging)
        outcome = ingest(
            self._make_beam_pipeline,
            plan_portions(window, by_day=bool(exec_properties.get("by_day"))),
            columns,
            Column(key, None) if key else None,
            staging,
        )
        # Other settings find other bad rows: the file of another run, whose result is still taken, stays as it is.
        digest = hashlib.sha256(json.dumps(exec_properties, sort_keys=True, default=str).encode()).hexdigest()
        name = f"{window.eval.days[-1]}-{digest[:8]}.jsonl"
        bad_rows = os.path.join(exec_properties["quarantine"], name)
        counts = put_aside(outcome, bad_rows)
        num_examples = {
            split: sum(report.num_examples for portion, report in outcome.reports.items() if portion.split == split)
            for split in window.splits
        }
        num_rows = _count_rows(outcome, counts, sum(num_examples.values()))
        _judge(outcome, counts, num_rows, num_examples, exec_properties["max_bad_fraction"], bad_rows)
        for split in window.splits:
            _move_shards(outcome, split, artifact_utils.get_split_uri([examples], split))
        fileio.rmtree(staging)

        for split, number in num_examples.items():
            logging.info("%s: %d examples", split, number)
        examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
        examples_utils.set_file_format(examples, "tfrecords_gzip")
        examples.set_string_custom_property("num_examples", json.dumps(num_examples))
        examples.set_string_custom_property("days", json.dumps(window.day_names))
        examples.set_string_custom_property("num_rows", str(num_rows))
        examples.set_string_custom_property("quarantined", json.dumps(counts.by_reason))
        examples.set_string_custom_property("quarantine", bad_rows if counts.rows else "")
        examples.set_string_custom_property("input_fingerprint", exec_properties["input_fingerprint"])


def _wanted_columns(exec_properties: dict[str, Any], *, is_partitioned: bool) -> tuple[Column, ...]:
    return find_columns(
        load_spec(exec_properties["features"]),
        json.loads(exec_properties["columns"]),
        max_raw_length=exec_properties["max_raw_length"],
        timestamp_unit=exec_properties["timestamp_unit"],
        is_timestamp_required=True,
        gives_day=not is_partitioned,
    )


def put_aside(outcome: Outcome, path: str) -> Counts:
    """Writes the quarantine file, if there are bad rows, in the order of the log; a corrupt file has one line.

    Returns:
        How many rows are bad, and why.
    """
    counts = Counts()
    estimates = outcome.corrupt_rows
    if fileio.exists(path):
        fileio.remove(path)
    if not estimates and not any(report.quarantine for report in outcome.reports.values()):
        return counts
    fileio.makedirs(os.path.dirname(path))
    with fileio.open(path, "w") as lines:
        for file, rows in estimates.items():
            message = outcome.corrupt[file].message
            logging.warning("%s is corrupt: %s", file, message)
            lines.write(BadRow(None, None, CORRUPT, message).to_json(str(file), rows=rows))
            counts.add(Count(CORRUPT, None, rows, str(file)))
        for report in outcome.reports.values():
            for count in report.counts.by_key.values():
                counts.add(count)
            if report.quarantine:
                with fileio.open(report.quarantine) as part:
                    for line in part:
                        lines.write(line)
    return counts


def _count_rows(outcome: Outcome, counts: Counts, num_examples: int) -> int:
    """Returns the number of rows of the window.

    Raises:
        RuntimeError: A row is neither an example nor in the quarantine, or is both: an error of this component.
    """
    corrupt_rows = counts.by_reason.get(CORRUPT, 0)
    num_rows = sum(report.num_rows for report in outcome.reports.values()) + corrupt_rows
    num_quarantined = sum(report.num_quarantined for report in outcome.reports.values()) + corrupt_rows
    if num_rows != num_examples + num_quarantined or num_quarantined != counts.rows:
        raise RuntimeError(
            f"of {num_rows} rows {num_examples} became examples and {num_quarantined} are in the quarantine, which "
            "does not add up: this is an error of ImpressionLogExampleGen, report it"
        )
    num_outside = sum(report.num_outside for report in outcome.reports.values())
    if num_outside:
        logging.info("%d rows in the files of the window are of other days", num_outside)
    return num_rows


def _judge(
    outcome: Outcome,
    counts: Counts,
    num_rows: int,
    num_examples: dict[str, int],
    max_bad_fraction: float,
    bad_rows: str,
) -> None:
    if counts.rows:
        logging.warning("%d of %d rows are bad: %s; all are in %s", counts.rows, num_rows, counts.top(), bad_rows)
    _judge_rows("the log", counts, num_rows, max_bad_fraction, bad_rows)
    of_splits = _count_by_split(outcome)
    for split, number in num_examples.items():
        if not number:
            raise LogError(f"the {split} split has no good row: correct the log; its bad rows are in {bad_rows}")
        # What the newest day has wrong is little beside all days. Of few rows, two bad ones are no writer gone wrong.
        in_split = of_splits[split]
        if number + in_split.rows >= _ROWS_TO_JUDGE:
            _judge_rows(f"the {split} split", in_split, number + in_split.rows, max_bad_fraction, bad_rows)


def _count_by_split(outcome: Outcome) -> dict[str, Counts]:
    """Returns the bad rows of each split; those of a corrupt file that has rows of both are in neither."""
    counts: dict[str, Counts] = collections.defaultdict(Counts)
    splits_of: dict[pathlib.Path, set[str]] = collections.defaultdict(set)
    for portion, report in outcome.reports.items():
        for count in report.counts.by_key.values():
            counts[portion.split].add(count)
        for piece in portion.pieces:
            splits_of[piece.file].add(portion.split)
    for file, rows in outcome.corrupt_rows.items():
        if len(splits_of[file]) == 1:
            counts[min(splits_of[file])].add(Count(CORRUPT, None, rows, str(file)))
    return counts


def _judge_rows(of: str, counts: Counts, num_rows: int, max_bad_fraction: float, bad_rows: str) -> None:
    if counts.rows > max_bad_fraction * num_rows:
        raise LogError(
            f"{counts.rows:,} of {num_rows:,} rows of {of} are bad, {counts.rows / num_rows:.2%}, more than "
            f"max_bad_fraction = {max_bad_fraction:.2%}: {counts.top()}: correct the log, or raise "
            f"log.max_bad_fraction; all bad rows are in {bad_rows}"
        )


def _move_shards(outcome: Outcome, split: str, folder: str) -> None:
    for into in (folder, os.path.dirname(arrow_file(os.path.join(folder, "any")))):
        if fileio.exists(into):
            fileio.rmtree(into)
        fileio.makedirs(into)
    portions = [(portion, report) for portion, report in outcome.reports.items() if portion.split == split]
    shards = [(portion.day, path, report.digest) for portion, report in portions for path, _ in report.shards]
    for index, (day, path, digest) in enumerate(shards):
        # As TFX's own ExampleGens name them, but for day and digest: by name they are in the order of the log.
        number = f"{index:05d}-of-{len(shards):05d}"
        name = f"data_tfrecord-{day}-{number}-{digest}.gz" if day else f"data_tfrecord-{number}.gz"
        fileio.rename(path, os.path.join(folder, name))
        fileio.rename(f"{path}.arrow", arrow_file(os.path.join(folder, name)))
