"""A plain TFX pipeline for Criteo's columns, of standard components with their defaults."""

from __future__ import annotations

import pathlib
from typing import Any

import tensorflow_model_analysis as tfma
from google.protobuf import text_format
from tfx.components import (
    CsvExampleGen,
    Evaluator,
    ExampleValidator,
    Pusher,
    SchemaGen,
    StatisticsGen,
    Trainer,
    Transform,
)
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import example_gen_pb2, pusher_pb2, trainer_pb2

from pipeline.beam import LOCAL_BEAM_ARGS

MODULE = str(pathlib.Path(__file__).with_name("plain_module.py").resolve())
# TFMA's metrics of a binary classifier, without slices, and a gate that any model passes.
_EVAL_CONFIG = """
model_specs { signature_name: "serving_default" prediction_key: "ctr" label_key: "label" }
slicing_specs {}
metrics_specs {
  metrics { class_name: "ExampleCount" }
  metrics { class_name: "AUC" threshold { value_threshold { lower_bound { value: 0.1 } } } }
  metrics { class_name: "AUCPrecisionRecall" }
  metrics { class_name: "BinaryCrossentropy" }
  metrics { class_name: "Calibration" }
}
"""


def make_pipeline(home: pathlib.Path, csv: pathlib.Path, settings: dict[str, Any]) -> Pipeline:
    """Returns the pipeline.

    Args:
        home: Where it writes.
        csv: Folder with a folder of CSV files for each split.
        settings: What the module file's `custom_config` has.
    """
    splits = [example_gen_pb2.Input.Split(name=name, pattern=f"{name}/*") for name in ("train", "eval")]
    example_gen = CsvExampleGen(str(csv), input_config=example_gen_pb2.Input(splits=splits))
    examples = example_gen.outputs["examples"]
    statistics_gen = StatisticsGen(examples)
    schema_gen = SchemaGen(statistics_gen.outputs["statistics"])
    schema = schema_gen.outputs["schema"]
    transform = Transform(examples, schema, module_file=MODULE)
    trainer = Trainer(
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema,
        module_file=MODULE,
        train_args=trainer_pb2.TrainArgs(splits=["train"]),
        eval_args=trainer_pb2.EvalArgs(splits=["eval"]),
        custom_config=settings,
    )
    evaluator = Evaluator(
        examples=examples,
        model=trainer.outputs["model"],
        eval_config=text_format.Parse(_EVAL_CONFIG, tfma.EvalConfig()),
    )
    destination = pusher_pb2.PushDestination(
        filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(home / "serving"))
    )
    return Pipeline(
        "plain",
        str(home / "root"),
        components=[
            example_gen,
            statistics_gen,
            schema_gen,
            ExampleValidator(statistics_gen.outputs["statistics"], schema),
            transform,
            trainer,
            evaluator,
            Pusher(trainer.outputs["model"], evaluator.outputs["blessing"], push_destination=destination),
        ],
        metadata_connection_config=sqlite_metadata_connection_config(str(home / "metadata.sqlite")),
        beam_pipeline_args=list(LOCAL_BEAM_ARGS),
    )


def read_metrics(evaluation: str) -> dict[str, float]:
    """Returns AUC and log loss of a ModelEvaluation."""
    found = tfma.load_eval_result(evaluation).get_metrics_for_slice()
    return {"auc": found["auc"]["doubleValue"], "log_loss": found["binary_crossentropy"]["doubleValue"]}
