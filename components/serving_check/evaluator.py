"""What the Evaluator makes of raw examples: TFMA's own reading and predicting, without its metrics."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_model_analysis.proto import config_pb2
from tfx_bsl.tfxio import tf_example_record

_RUNNER = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"


def evaluator_predictions(
    saved_model: str, examples: Sequence[bytes], schema: schema_pb2.Schema, eval_config: config_pb2.EvalConfig
) -> list[float]:
    """Returns the ctr of each example, as the Evaluator reads it from the model.

    TFX's Evaluator keeps metrics and no predictions. So the sample is put through the extractors that it is made of,
    with its own configuration: reading into Arrow, the signature, the prediction key.

    Args:
        saved_model: The SavedModel's folder.
        examples: Serialized raw tf.Examples, with their labels.
        schema: Their schema.
        eval_config: The Evaluator's, of which the model specs are read.

    Raises:
        ValueError: It has no prediction for an example.
    """
    config = config_pb2.EvalConfig(model_specs=[_candidate(eval_config)])
    shared_model = tfma.default_eval_shared_model(saved_model, eval_config=config)
    tfxio = tf_example_record.TFExampleBeamRecord(
        physical_format="inmemory", schema=schema, raw_record_column_name=tfma.ARROW_INPUT_COLUMN
    )
    extractors = [
        tfma.extractors.FeaturesExtractor(config, tensor_representations=tfxio.TensorRepresentations()),
        tfma.extractors.PredictionsExtractor(eval_config=config, eval_shared_model=shared_model),
    ]
    with tempfile.TemporaryDirectory() as folder:
        with beam.Pipeline(runner=_RUNNER) as pipeline:
            extracts = (
                pipeline
                | beam.Create(list(examples), reshuffle=False)
                | tfxio.BeamSource()
                | tfma.BatchedInputsToExtracts()
            )
            for extractor in extractors:
                extracts |= extractor.stage_name >> extractor.ptransform
            _ = extracts | beam.ParDo(_Write(folder))
        found = _read(folder)
    missing = [example for example in examples if example not in found]
    if missing:
        raise ValueError(
            f"the Evaluator's extractors have no prediction for {len(missing)} of {len(examples)} examples"
        )
    return [found[example] for example in examples]


def _candidate(eval_config: config_pb2.EvalConfig) -> config_pb2.ModelSpec:
    (spec,) = [spec for spec in eval_config.model_specs if not spec.is_baseline]
    candidate = config_pb2.ModelSpec()
    candidate.CopyFrom(spec)
    candidate.name = ""
    return candidate


class _Write(beam.DoFn):
    """Writes each batch's examples and predictions: a PCollection cannot be handed over but through a file."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(self, extracts: dict[str, Any]) -> Iterable[None]:
        handle, _ = tempfile.mkstemp(dir=self._folder, suffix=".json")
        predictions = np.asarray(extracts[tfma.PREDICTIONS_KEY], np.float32).reshape(-1)
        inputs = [bytes(example).hex() for example in extracts[tfma.INPUT_KEY]]
        with os.fdopen(handle, "w") as output:
            json.dump([inputs, [float(ctr) for ctr in predictions]], output)
        return ()


def _read(folder: str) -> dict[bytes, float]:
    found: dict[bytes, float] = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name)) as file:
            inputs, predictions = json.load(file)
        found |= {bytes.fromhex(example): ctr for example, ctr in zip(inputs, predictions, strict=True)}
    return found
