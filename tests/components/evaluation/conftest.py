"""Runs TFMA with the package's extractors and metrics on impressions whose predictions stand in their columns."""

from __future__ import annotations

import dataclasses

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.public import tfxio
from tfx_bsl.tfxio import tensor_adapter

from components.evaluation.extractors import custom_extractors
from pipeline.beam import LOCAL_BEAM_ARGS
from pipeline.evaluation import make_eval_config
from schemas.features import FeatureSpec, IdFeature, IdSequence

SPEC = FeatureSpec(
    "s",
    (
        IdFeature("user", 10, dtype="string"),
        IdFeature("genre", 10, dtype="string"),
        IdSequence("history", 10, max_length=3),
    ),
    group_key="user",
    timestamp="timestamp",
)
WEIGHTED = dataclasses.replace(SPEC, weight="weight")


@dataclasses.dataclass(frozen=True)
class Impressions:
    user: np.ndarray  # [n]
    genre: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    candidate: np.ndarray
    baseline: np.ndarray
    timestamp: np.ndarray
    history: list  # [n] of lists


def draw_impressions(num_rows, seed=0):
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 2, num_rows)
    # Two decimals: there are ties.
    candidate, baseline = (
        np.clip(0.5 + 0.15 * (2 * label - 1) + generator.normal(0, noise, num_rows), 0.01, 0.99).round(2)
        for noise in (0.3, 0.3)
    )
    return Impressions(
        user=generator.integers(0, num_rows // 10, num_rows),
        genre=generator.integers(0, 2, num_rows),
        label=label,
        weight=generator.choice([0.5, 1.0, 2.0], num_rows),
        candidate=candidate,
        baseline=baseline,
        timestamp=generator.integers(0, 3 * 86_400, num_rows),
        history=[list(range(int(length))) for length in generator.integers(0, 8, num_rows)],
    )


def _examples(impressions):
    def feature(values):
        if isinstance(values[0], bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        if isinstance(values[0], float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    for row in range(len(impressions.label)):
        columns = {
            "user": [b"user %d" % impressions.user[row]],
            "genre": [b"<b>%d</b>" % impressions.genre[row]],
            "label": [int(impressions.label[row])],
            "timestamp": [int(impressions.timestamp[row])],
            "weight": [float(impressions.weight[row])],
            "candidate": [float(impressions.candidate[row])],
            "baseline": [float(impressions.baseline[row])],
        }
        if impressions.history[row]:
            columns["history"] = impressions.history[row]
        features = {name: feature(values) for name, values in columns.items()}
        yield tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def _schema():
    schema = schema_pb2.Schema()
    types = {"user": 1, "genre": 1, "label": 2, "timestamp": 2, "weight": 3, "candidate": 3, "baseline": 3}
    for name, number in types.items():
        schema.feature.add(name=name, type=number).shape.dim.add(size=1)
        schema.feature[-1].presence.min_fraction = 1
    schema.feature.add(name="history", type=2)
    return schema


class _Column(tf.Module):
    """A model that predicts what stands in a column."""

    def __init__(self, column):
        super().__init__()
        self._column = column

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(self, examples):
        parsed = tf.io.parse_example(examples, {self._column: tf.io.FixedLenFeature([1], tf.float32)})
        return {"ctr": parsed[self._column]}


def run_tfma(impressions, config, folder, spec=SPEC, has_baseline=True):
    """Writes an evaluation of the impressions below the folder, as the Evaluator does, and returns where."""
    features = f"{__name__}:{'WEIGHTED' if spec.weight else 'SPEC'}"
    eval_config = tfma.utils.update_eval_config_with_defaults(
        make_eval_config(config, spec, features), has_baseline=has_baseline, rubber_stamp=True
    )
    models = []
    for model_spec in eval_config.model_specs:
        column = "baseline" if model_spec.is_baseline else "candidate"
        model = _Column(column)
        tf.saved_model.save(model, str(folder / column), signatures={"serving_default": model.serve})
        models.append(
            tfma.default_eval_shared_model(
                str(folder / column), model_name=model_spec.name, eval_config=eval_config, add_metrics_callbacks=None
            )
        )
    source = tfxio.TFExampleBeamRecord(
        physical_format="inmem", schema=_schema(), raw_record_column_name=tfma.ARROW_INPUT_COLUMN
    )
    adapter = tensor_adapter.TensorAdapterConfig(source.ArrowSchema(), source.TensorRepresentations())
    with beam.Pipeline(argv=list(LOCAL_BEAM_ARGS)) as pipeline:
        _ = (
            pipeline
            | beam.Create(list(_examples(impressions)))
            | source.BeamSource(batch_size=500)
            | tfma.ExtractEvaluateAndWriteResults(
                eval_shared_model=models if has_baseline else models[0],
                eval_config=eval_config,
                extractors=custom_extractors(models if has_baseline else models[0], eval_config, adapter),
                output_path=str(folder / "evaluation"),
                tensor_adapter_config=adapter,
            )
        )
    return str(folder / "evaluation")
