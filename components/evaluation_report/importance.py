"""Permutation importance: how much worse a model is when one field's values are shuffled among the impressions.

The field keeps its distribution and loses what it says about the impression (Breiman, "Random forests", Machine
Learning 45, 2001; Fisher, Rudin and Dominici, JMLR 20, 2019). Of two fields that say the same each may seem to be worth
little, for the other one is still there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.evaluation import statistics
from schemas.errors import one_line
from schemas.features import Feature, FeatureSpec, IdSequence, NumericFeature

MAX_EXAMPLES = 20_000
_MAX_SCORED = 1_000_000  # of all shuffles together: some seconds
_MAX_READ = 1_000_000
_BATCH_SIZE = 4096

Columns: TypeAlias = Mapping[str, Any]  # inputs of a model's signature `predict`, [batch] or [batch, any]
Scorer: TypeAlias = Callable[[Columns], Any]  # -> ctr, [batch]


@dataclasses.dataclass(frozen=True)
class Lost:
    """What shuffling a field costs.

    Attributes:
        value: Mean over the shuffles.
        spread: Their standard deviation; 0 of a single one.
    """

    value: float
    spread: float


@dataclasses.dataclass(frozen=True)
class FieldImportance:
    """One field: by how much the AUC falls, and by how much the log loss, in nats, rises."""

    field: str
    auc: Lost
    log_loss: Lost


@dataclasses.dataclass(frozen=True)
class Importance:
    """All fields of a model.

    Attributes:
        num_examples: Number of impressions of the eval split that were scored.
        num_repeats: How often each field was shuffled.
        auc: The AUC as it is.
        log_loss: The log loss as it is.
        fields: The fields, that which costs the most AUC first.
    """

    num_examples: int
    num_repeats: int
    auc: float
    log_loss: float
    fields: tuple[FieldImportance, ...]


def explain(
    spec: FeatureSpec, score: Scorer, examples: Sequence[bytes], num_repeats: int = 3, seed: int = 0
) -> Importance:
    """Returns the importance of each field.

    Args:
        spec: The data set.
        score: The model.
        examples: Raw serialized tf.Examples with their labels.
        num_repeats: How often each field is shuffled.
        seed: Of the shuffles.

    Raises:
        ValueError: There are no examples, or all of them are of one class.
    """
    if not examples:
        raise ValueError("the eval split has no examples")
    columns, labels, weights = read_columns(spec, examples)
    if len(np.unique(labels[weights > 0])) < 2:
        raise ValueError(f"all {len(labels):,} impressions are of one class, which no AUC can tell apart")
    generator = np.random.default_rng(seed)
    auc, log_loss = _measure(score(columns), labels, weights)
    found = []
    for feature in spec.features:
        shuffled = []
        for _ in range(num_repeats):
            order = generator.permutation(len(labels))
            moved = {name: columns[name][order] for name in _inputs(feature)}
            shuffled.append(_measure(score({**columns, **moved}), labels, weights))
        aucs, log_losses = np.array(shuffled).T
        found.append(FieldImportance(feature.name, _lost(auc - aucs), _lost(log_losses - log_loss)))
    found.sort(key=lambda field: -field.auc.value)
    return Importance(len(labels), num_repeats, auc, log_loss, tuple(found))


def _inputs(feature: Feature) -> tuple[str, ...]:
    return (feature.name, feature.length_name) if isinstance(feature, IdSequence) else (feature.name,)


def _lost(values: Any) -> Lost:
    return Lost(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0)


def _measure(predictions: Any, labels: Any, weights: Any) -> tuple[float, float]:
    folds = np.zeros(len(labels), np.int64)
    scores = statistics.count_scores(predictions.astype(np.float64), labels, weights, folds)
    moments = statistics.sum_moments(predictions.astype(np.float64), labels, weights, folds)
    found = statistics.pooled_metrics(scores, moments)
    return float(found["auc"][0]), float(found["log_loss"][0])


def read_columns(spec: FeatureSpec, examples: Sequence[bytes]) -> tuple[dict[str, Any], Any, Any]:
    """Returns the inputs of a model's signature `predict`, the labels and the weights of raw examples.

    Args:
        spec: The data set.
        examples: Serialized tf.Examples.

    Returns:
        The inputs by name, and two float64 [examples].

    Raises:
        ValueError: An example has a feature as another type.
    """
    parsing = {feature.name: tf.io.VarLenFeature(feature.dtype) for feature in spec.features}
    parsing[spec.label.name] = tf.io.VarLenFeature(tf.int64)
    if spec.weight:
        parsing[spec.weight] = tf.io.VarLenFeature(tf.float32)
    try:
        parsed = tf.io.parse_example(tf.constant(list(examples)), parsing)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(
            f"the examples were made by another feature spec than {spec.name} is now ({one_line(error.message)}): `ctr "
            "run` makes them anew; or name the config that they were made with"
        ) from None
    columns: dict[str, Any] = {}
    for feature in spec.features:
        rows = _rows(parsed[feature.name], keep_empty=isinstance(feature, IdSequence))
        if isinstance(feature, IdSequence):
            rows = rows[:, -feature.max_length :]
            columns[feature.length_name] = rows.row_lengths().numpy()
            columns[feature.name] = rows.to_tensor(shape=[None, feature.max_length]).numpy()
        elif isinstance(feature, NumericFeature):
            columns[feature.name] = _first(rows.with_values(tf.cast(rows.values, tf.float32)), np.nan)
        else:
            columns[feature.name] = _first(rows, "" if feature.dtype == "string" else -1)
    labels = _first(_rows(parsed[spec.label.name]), 0).astype(np.float64)
    weights = _first(_rows(parsed[spec.weight]), 0.0).astype(np.float64) if spec.weight else np.ones(len(labels))
    return columns, labels, weights


def _rows(column: tf.SparseTensor, *, keep_empty: bool = False) -> tf.RaggedTensor:
    if column.dtype == tf.string and not keep_empty:  # no value; in a sequence it has a place, as in a request
        column = tf.sparse.retain(column, column.values != "")
    return tf.RaggedTensor.from_value_rowids(column.values, column.indices[:, 0], nrows=column.dense_shape[0])


def _first(rows: tf.RaggedTensor, default: Any) -> Any:
    return rows.to_tensor(default_value=default, shape=[None, 1])[:, 0].numpy()


def load_scorer(saved_model: str, spec: FeatureSpec) -> Scorer:
    """Returns the signature `predict` of a model.

    Args:
        saved_model: The SavedModel's folder.
        spec: The data set.

    Raises:
        ValueError: The model has no such signature, or other features than the spec.
    """
    model = tf.saved_model.load(saved_model)
    if "predict" not in model.signatures:
        raise ValueError(f"{saved_model} has no signature predict: it was exported by an older version, train it again")
    _check_inputs(model.signatures["predict"].structured_input_signature[1], spec, saved_model)

    def score(columns: Columns) -> Any:
        signature = model.signatures["predict"]  # which holds the model only weakly
        count = len(next(iter(columns.values())))
        batches = [slice(start, start + _BATCH_SIZE) for start in range(0, count, _BATCH_SIZE)]
        parts = [signature(**{n: tf.constant(v[batch]) for n, v in columns.items()})["ctr"] for batch in batches]
        return np.concatenate([part.numpy()[:, 0] for part in parts])

    return score


def _check_inputs(inputs: Mapping[str, tf.TensorSpec], spec: FeatureSpec, saved_model: str) -> None:
    """Raises an error that names what differs; TensorFlow's would print all values."""
    columns, *_ = read_columns(spec, [b""])  # of an example without values
    wrong = [f"it has no feature {name}" for name in columns if name not in inputs]
    for name, tensor in sorted(inputs.items()):  # a SavedModel has them in no order
        if name not in columns:
            wrong.append(f"it has {name}, which the spec has not")
        elif tensor.dtype != tf.as_dtype(columns[name].dtype):
            wrong.append(f"its {name} is {tensor.dtype.name}, the spec's {tf.as_dtype(columns[name].dtype).name}")
    if wrong:
        raise ValueError(
            f"the model at {saved_model} is of another feature spec: {', '.join(wrong)}: train it again, or name the "
            "spec that it was trained with"
        )


def read_sample(folders: Sequence[str], num_examples: int, spec: FeatureSpec, num_repeats: int) -> list[bytes]:
    """Returns a sample of raw examples, evenly over all of them, which it costs some seconds to explain.

    Args:
        folders: Folders of the eval split.
        num_examples: How many examples these have; only that it is even depends on it.
        spec: The data set.
        num_repeats: How often each field will be shuffled.
    """
    count = min(MAX_EXAMPLES, _MAX_SCORED // (len(spec.features) * num_repeats))
    files = sorted(file for folder in folders for file in fileio.glob(io_utils.all_files_pattern(folder)))
    if not files:
        return []
    examples = tf.data.Dataset.from_tensor_slices(files).interleave(
        lambda file: tf.data.TFRecordDataset(file, compression_type="GZIP"), cycle_length=16, block_length=16
    )
    total = max(count, min(num_examples, _MAX_READ))
    # Of the first k examples k * count / total are taken, whatever k is.
    taken = examples.take(_MAX_READ).enumerate().filter(lambda k, _: (k + 1) * count // total > k * count // total)
    return [example.numpy() for _, example in taken.take(count)]
