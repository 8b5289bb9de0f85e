"""Writes the Examples of a window of an impression log."""

from __future__ import annotations

import json
import os
import pathlib
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import apache_beam as beam
from absl import logging
from tfx.components.util import examples_utils
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact

from components.impression_log_example_gen.columns import Column, find_columns
from components.impression_log_example_gen.examples import write_shard
from components.impression_log_example_gen.log import LogError, restore_window
from components.impression_log_example_gen.shards import Shard, plan_shards
from schemas.features import load_spec

_PROBLEMS = "problems"


class Executor(BaseBeamExecutor):
    """Reads the days that the driver has chosen."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the splits `train` and `eval`.

        Args:
            input_dict: Empty.
            output_dict: `examples`, one Examples artifact. It gets the string properties `num_examples` and `days`,
                JSON by split, and `input_fingerprint`.
            exec_properties: The component's parameters, and the driver's `days` and `input_fingerprint`.

        Raises:
            LogError: The log cannot be used. Nothing is in the artifact's folder then.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        columns = find_columns(load_spec(exec_properties["features"]))
        window = restore_window(pathlib.Path(exec_properties["log_path"]), json.loads(exec_properties["days"]))
        shards = plan_shards(window, columns)
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        examples.split_names = artifact_utils.encode_split_names(list(window.splits))

        # The names are new and the splits may exist, because an attempt may have been killed before.
        staging = os.path.join(self._get_tmp_dir(), uuid.uuid4().hex)
        write_shards(self._make_beam_pipeline, shards, columns, staging)
        for split in window.splits:
            folder = artifact_utils.get_split_uri([examples], split)
            if fileio.exists(folder):
                fileio.rmtree(folder)
            fileio.rename(os.path.join(staging, split), folder)

        num_examples = {
            split: sum(shard.num_rows for shard in shards if shard.split == split) for split in window.splits
        }
        for split, number in num_examples.items():
            logging.info("%s: %d examples", split, number)
        examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
        examples_utils.set_file_format(examples, "tfrecords_gzip")
        examples.set_string_custom_property("num_examples", json.dumps(num_examples))
        examples.set_string_custom_property("days", exec_properties["days"])
        examples.set_string_custom_property("input_fingerprint", exec_properties["input_fingerprint"])


def write_shards(
    make_beam_pipeline: Callable[[], beam.Pipeline], shards: list[Shard], columns: tuple[Column, ...], folder: str
) -> None:
    """Writes shards to `<folder>/<split>/<file name>`.

    Args:
        make_beam_pipeline: Returns a new Beam pipeline.
        shards: The shards.
        columns: The columns to take.
        folder: A folder that all workers reach.

    Raises:
        LogError: As in `write_shard`: of several problems that of the first shard. `folder` is incomplete then.
    """
    for name in (_PROBLEMS, *(shard.split for shard in shards)):
        fileio.makedirs(os.path.join(folder, name))
    with make_beam_pipeline() as pipeline:
        (
            pipeline
            | "Shards" >> beam.Create(shards)
            | "Distribute" >> beam.Reshuffle()
            | "Write" >> beam.ParDo(WriteShard(columns, folder))
        )
    for shard in shards:
        if fileio.exists(_problem_file(folder, shard)):
            with fileio.open(_problem_file(folder, shard)) as file:
                raise LogError(file.read())


class WriteShard(beam.DoFn):
    """Writes one shard, or what is wrong with its rows to a file of problems.

    Not raised here, because Beam would try the shard again, on some runners four times, and then raise an error of
    another class with the sentence somewhere within it.
    """

    def __init__(self, columns: tuple[Column, ...], folder: str) -> None:
        super().__init__()
        self._columns = columns
        self._folder = folder

    def process(self, element: Shard) -> Iterable[Any]:
        """Writes one shard; nothing comes out.

        Args:
            element: The shard.
        """
        # Under a name of its own first: a runner may give one shard to two workers.
        unfinished = os.path.join(self._folder, uuid.uuid4().hex)
        try:
            write_shard(element, self._columns, unfinished)
        except LogError as error:
            with fileio.open(_problem_file(self._folder, element), "w") as file:
                file.write(str(error))
        else:
            fileio.rename(unfinished, os.path.join(self._folder, element.split, element.file_name), overwrite=True)
        return ()


def _problem_file(folder: str, shard: Shard) -> str:
    return os.path.join(folder, _PROBLEMS, f"{shard.split}-{shard.index}")
