"""Runs the Evaluator's executor on drawn impressions, with models that predict what stands in their columns."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing, ModelEvaluation, Schema
from tfx.utils import io_utils

from components.evaluation.component import Executor
from components.evaluation.extractors import custom_extractors
from pipeline.beam import LOCAL_BEAM_ARGS
from pipeline.evaluation import make_eval_config
from schemas.features import FeatureSpec, IdFeature, IdSequence
from schemas.tfmd import make_schema

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

    def __getitem__(self, rows):
        """Those that a mask has."""
        columns = {name: values for name, values in vars(self).items() if name != "history"}
        history = [ids for ids, is_in in zip(self.history, rows, strict=True) if is_in]
        return Impressions(**{name: values[rows] for name, values in columns.items()}, history=history)


def draw_impressions(num_rows, seed=0, noises=(0.3, 0.3), num_genres=2):
    """Impressions whose candidate's and baseline's predictions are as far off as the noises say."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 2, num_rows)
    # Two decimals: there are ties.
    candidate, baseline = (
        np.clip(0.5 + 0.15 * (2 * label - 1) + generator.normal(0, noise, num_rows), 0.01, 0.99).round(2)
        for noise in noises
    )
    return Impressions(
        user=generator.integers(0, num_rows // 10, num_rows),
        genre=generator.integers(0, num_genres, num_rows),
        label=label,
        weight=generator.choice([0.5, 1.0, 2.0], num_rows),
        candidate=candidate,
        baseline=baseline,
        timestamp=generator.integers(0, 3 * 86_400, num_rows),
        history=[list(range(int(length))) for length in generator.integers(0, 8, num_rows)],
    )


def genre_name(number):
    """A genre's name, which is hostile."""
    return f"<b>{number}</b>"


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
            "genre": [genre_name(impressions.genre[row]).encode()],
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


def _schema(spec):
    """The data set's, and the columns that the models predict."""
    schema = make_schema(spec)
    for name in ("candidate", "baseline"):
        schema.feature.add(name=name, type=schema_pb2.FLOAT)
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


def evaluate(impressions, config, folder, spec=SPEC, train=None, has_baseline=True):
    """Evaluates impressions as the pipeline does.

    Args:
        impressions: The eval split.
        config: Slices and thresholds.
        folder: Where the artifacts go.
        spec: `SPEC` or `WEIGHTED`.
        train: The training split, by default nothing.
        has_baseline: Whether the candidate is compared.

    Returns:
        The artifacts ModelEvaluation and ModelBlessing.
    """

    def put(artifact, name, number=1):
        artifact.id, artifact.uri = number, str(folder / name)
        return artifact

    examples = put(Examples(), "examples")
    examples.split_names = artifact_utils.encode_split_names(["train", "eval"])
    for split, rows in (("train", train), ("eval", impressions)):
        (folder / "examples" / f"Split-{split}").mkdir(parents=True)
        file = str(folder / "examples" / f"Split-{split}" / "data_tfrecord-00000-of-00001.gz")
        with tf.io.TFRecordWriter(file, "GZIP") as writer:
            for example in _examples(rows) if rows else ():
                writer.write(example)
    schema = put(Schema(), "schema")
    io_utils.write_pbtxt_file(str(folder / "schema" / "schema.pbtxt"), _schema(spec))
    models = {}
    for number, column in enumerate(["candidate", *(["baseline"] if has_baseline else [])]):
        model = _Column(column)
        path = str(folder / column / "Format-Serving")
        tf.saved_model.save(model, path, signatures={"serving_default": model.serve})
        models[column] = put(Model(), column, number)
    inputs = {"examples": [examples], "schema": [schema], "model": [models["candidate"]]}
    inputs["baseline_model"] = [models["baseline"]] if has_baseline else []
    features = f"{__name__}:{'WEIGHTED' if spec.weight else 'SPEC'}"
    properties = {
        "eval_config": json_format.MessageToJson(
            make_eval_config(config, spec, features), preserving_proto_field_name=True
        ),
        "module_path": custom_extractors.__module__,
        "example_splits": "null",
    }
    evaluation, blessing = put(ModelEvaluation(), "evaluation"), put(ModelBlessing(), "blessing")
    context = BaseBeamExecutor.Context(
        beam_pipeline_args=list(LOCAL_BEAM_ARGS), tmp_dir=str(folder / "tmp"), unique_id="1"
    )
    Executor(context).Do(inputs, {"evaluation": [evaluation], "blessing": [blessing]}, properties)
    return evaluation, blessing
