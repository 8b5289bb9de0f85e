"""What TFMA's Evaluator does to impressions: columns are derived, and batches are cut into slices.

The Evaluator component imports this module by its name and calls `custom_extractors`, on any Beam runner.

TFMA takes batches apart, finds the slices of each impression, and hands it on once for each of them, which is where its
time goes. Here a batch is cut into its slices as a whole: what is handed on is one element for each slice of a batch,
with arrays for label, prediction and weight, which `metrics` takes. Of TFMA's own metrics those take it too that
flatten the outputs of a model; one that does not would take a part of a batch for an impression.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.extractors.slice_key_extractor import SLICE_KEY_EXTRACTOR_STAGE_NAME
from tensorflow_model_analysis.extractors.unbatch_extractor import UNBATCH_EXTRACTOR_STAGE_NAME
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.slicer import slicer_lib

from components.evaluation.derived import derive, first_ids
from components.evaluation.metrics import MODULE, UNIT
from components.evaluation.slices import SliceKey, column_values, find_slices, flatten
from components.evaluation.statistics import Array
from components.evaluation.training_ids import TrainingIds
from schemas.features import FeatureSpec, load_spec, no_value


def custom_extractors(
    eval_shared_model: Any, eval_config: config_pb2.EvalConfig, tensor_adapter_config: Any
) -> list[Any]:
    """Returns TFMA's extractors up to the predictions, and then this module's."""
    extractors = tfma.default_extractors(
        eval_shared_model=eval_shared_model, eval_config=eval_config, tensor_adapter_config=tensor_adapter_config
    )
    unbatch = [extractor.stage_name for extractor in extractors].index(UNBATCH_EXTRACTOR_STAGE_NAME)
    # By its name TFMA knows where its evaluators go on.
    slicing = tfma.extractors.Extractor(SLICE_KEY_EXTRACTOR_STAGE_NAME, CutIntoSlices(eval_config))
    return [*extractors[:unbatch], slicing]


def read_settings(eval_config: config_pb2.EvalConfig) -> dict[str, Any]:
    """Returns what the extractors are told, which stands in the config of one of this package's metrics.

    Returns:
        `features`, the name of the feature spec; `min_slice_examples`; and, where a slice needs it, `training_ids`, the
        folder that `training_ids.WriteTrainingIds` has written to.
    """
    return _settings(_metric(eval_config))


def with_training_ids(eval_config: config_pb2.EvalConfig, folder: str) -> config_pb2.EvalConfig:
    """Returns a config that names the folder of the training ids."""
    told = config_pb2.EvalConfig()
    told.CopyFrom(eval_config)
    metric = _metric(told)
    metric.config = json.dumps(_settings(metric) | {"training_ids": folder}, sort_keys=True)
    return told


def slice_columns(eval_config: config_pb2.EvalConfig) -> frozenset[str]:
    """Returns the columns that slices are made by."""
    return frozenset(key for slicing in eval_config.slicing_specs for key in slicing.feature_keys)


def _metric(eval_config: config_pb2.EvalConfig) -> config_pb2.MetricConfig:
    for specs in eval_config.metrics_specs:
        for metric in specs.metrics:
            if metric.module == MODULE and _settings(metric).get("features"):
                return metric
    raise ValueError(f"no metric of {MODULE} names the features")


def _settings(metric: config_pb2.MetricConfig) -> dict[str, Any]:
    return dict(json.loads(metric.config or "{}"))


class CutIntoSlices(beam.PTransform):
    """Extracts of batches -> extracts of one slice each.

    Args:
        eval_config: With the slices, and the config of the metric that `read_settings` reads.
    """

    def __init__(self, eval_config: config_pb2.EvalConfig) -> None:
        super().__init__()
        self._settings = read_settings(eval_config)
        self._crossings = [tuple(slicing.feature_keys) for slicing in eval_config.slicing_specs]

    def expand(self, extracts: Any) -> Any:
        """Applies the transform."""
        cut = extracts | "Cut" >> beam.ParDo(_Cut(self._settings, self._crossings))
        least = self._settings.get("min_slice_examples", 1)
        if least > 1:
            small = (
                cut
                | "Count" >> beam.Map(_key_and_count)
                | beam.CombinePerKey(sum)
                | "Small" >> beam.Filter(_is_small, least)
            )
            cut |= "LeaveOut" >> beam.Filter(_is_not_among, beam.pvalue.AsDict(small))
        return cut


def _slice_key(part: tfma.Extracts) -> SliceKey:
    key: SliceKey = part[tfma.SLICE_KEY_TYPES_KEY][0]
    return key


def _key_and_count(part: tfma.Extracts) -> tuple[SliceKey, int]:
    return _slice_key(part), len(part[tfma.FEATURES_KEY][UNIT])


def _is_small(key_and_count: tuple[SliceKey, int], least: int) -> bool:
    key, count = key_and_count
    return bool(key) and count < least  # all impressions have the empty key


def _is_not_among(part: tfma.Extracts, slices: Mapping[SliceKey, int]) -> bool:
    return _slice_key(part) not in slices


class _Cut(beam.DoFn):
    def __init__(self, settings: Mapping[str, Any], crossings: Sequence[Sequence[str]]) -> None:
        self._settings = settings
        self._crossings = crossings

    def setup(self) -> None:
        self._spec = load_spec(self._settings["features"])
        self._columns = {name for crossing in self._crossings for name in crossing}
        self._missing = {feature.name: no_value(feature) for feature in self._spec.features}
        folder = self._settings.get("training_ids")
        self._training_ids = TrainingIds(self._spec, folder, self._columns) if folder else None

    def process(self, extracts: tfma.Extracts) -> Iterator[tfma.Extracts]:
        features = extracts[tfma.FEATURES_KEY]
        columns = {name: features[name] for name in self._columns if name in features}
        columns |= derive(self._spec, features, self._columns - set(columns), self._training_ids)
        unit = units(self._spec, features, extracts[tfma.INPUT_KEY])
        values = {name: column_values(column, self._missing.get(name)) for name, column in columns.items()}
        for key, rows in find_slices(values, len(unit), self._crossings):
            part = {
                name: _take(extracts[name], rows)
                for name in (tfma.LABELS_KEY, tfma.PREDICTIONS_KEY, tfma.EXAMPLE_WEIGHTS_KEY)
                if extracts.get(name) is not None
            }
            part[tfma.FEATURES_KEY] = {UNIT: unit[rows]}
            part[tfma.SLICE_KEY_TYPES_KEY] = slicer_lib.slice_keys_to_numpy_array([key])
            yield part


def _take(values: Any, rows: Any) -> Any:
    """Returns the values of some rows, [rows]; TFMA keeps them by the model's name where there are two.

    Raises:
        ValueError: A row has not exactly one.
    """
    if isinstance(values, Mapping):
        return {name: _take(inner, rows) for name, inner in values.items()}
    of_row, flat = flatten(values)
    if len(of_row) and not np.array_equal(of_row, np.arange(of_row[-1] + 1)):
        raise ValueError("an impression has no label, weight or prediction, or has several")
    return flat[rows]


def units(spec: FeatureSpec, features: Any, examples: Sequence[bytes]) -> Array:
    """Returns the first number of each impression's row in `Sketch`: what it is grouped by.

    Args:
        spec: The data set.
        features: The batch's raw columns.
        examples: The batch's serialized examples, [batch].

    Returns:
        float64 [batch].
    """
    ids = first_ids(features[spec.group_key]) if spec.group_key else [None] * len(examples)
    return np.array(
        [
            float(_hash(str(id_).encode() if not isinstance(id_, bytes) else id_))
            if id_ is not None
            else -1.0 - _hash(example)
            for id_, example in zip(ids, examples, strict=True)
        ]
    )


def _hash(value: bytes) -> int:
    """Returns a hash in [0, 2^53), the whole numbers that a float64 holds."""
    return int.from_bytes(hashlib.blake2b(value, digest_size=8).digest(), "little") >> 11
