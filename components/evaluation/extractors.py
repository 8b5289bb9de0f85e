"""What TFMA's Evaluator does to an impression before it is sliced: derived columns to slice by, and the unit of folds.

The Evaluator component imports this module by its name and calls `custom_extractors`, on any Beam runner. Everything is
done on whole batches; then all columns are dropped that no slice reads, because what follows is done row by row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.extractors.unbatch_extractor import UNBATCH_EXTRACTOR_STAGE_NAME
from tensorflow_model_analysis.proto import config_pb2

from components.evaluation.derived import derive, first_values
from components.evaluation.metrics import MODULE, UNIT
from components.evaluation.statistics import Array
from components.evaluation.training_ids import TrainingIds
from schemas.features import FeatureSpec, load_spec


def custom_extractors(
    eval_shared_model: Any, eval_config: config_pb2.EvalConfig, tensor_adapter_config: Any
) -> list[Any]:
    """Returns TFMA's extractors with this module's before they take batches apart."""
    extractors = tfma.default_extractors(
        eval_shared_model=eval_shared_model, eval_config=eval_config, tensor_adapter_config=tensor_adapter_config
    )
    unbatch = [extractor.stage_name for extractor in extractors].index(UNBATCH_EXTRACTOR_STAGE_NAME)
    derived = tfma.extractors.Extractor(
        stage_name="DeriveColumns",
        ptransform=beam.ParDo(_DeriveColumns(read_settings(eval_config), slice_columns(eval_config))),
    )
    return [*extractors[:unbatch], derived, *extractors[unbatch:]]


def read_settings(eval_config: config_pb2.EvalConfig) -> dict[str, str]:
    """Returns what the extractors are told, which stands in the config of one of this package's metrics.

    Returns:
        `features`, the name of the feature spec, and, where a slice needs it, `training_ids`, the folder that
        `training_ids.WriteTrainingIds` has written to.
    """
    return {name: value for name, value in _settings(_metric(eval_config)).items() if isinstance(value, str)}


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


class _DeriveColumns(beam.DoFn):
    def __init__(self, settings: Mapping[str, str], columns: frozenset[str]) -> None:
        self._settings = settings
        self._columns = columns

    def setup(self) -> None:
        self._spec = load_spec(self._settings["features"])
        folder = self._settings.get("training_ids")
        self._training_ids = TrainingIds(self._spec, folder, self._columns) if folder else None

    def process(self, extracts: tfma.Extracts) -> list[tfma.Extracts]:
        features = extracts[tfma.FEATURES_KEY]
        kept = {name: features[name] for name in self._columns if name in features}
        kept |= derive(self._spec, features, self._columns - set(kept), self._training_ids)
        kept[UNIT] = units(self._spec, features, extracts[tfma.INPUT_KEY])
        dropped = (tfma.FEATURES_KEY, tfma.INPUT_KEY)
        return [{key: value for key, value in extracts.items() if key not in dropped} | {tfma.FEATURES_KEY: kept}]


def units(spec: FeatureSpec, features: Any, examples: Sequence[bytes]) -> Array:
    """Returns the first number of each impression's row in `Sketch`: what it is grouped by.

    Args:
        spec: The data set.
        features: The batch's raw columns.
        examples: The batch's serialized examples, [batch].

    Returns:
        float64 [batch].
    """
    ids = first_values(features[spec.group_key]) if spec.group_key else [None] * len(examples)
    return np.array(
        [
            float(_hash(str(id_).encode() if not isinstance(id_, bytes) else id_))
            if id_ not in (None, b"")
            else -1.0 - _hash(example)
            for id_, example in zip(ids, examples, strict=True)
        ]
    )


def _hash(value: bytes) -> int:
    """Returns a hash in [0, 2^53), the whole numbers that a float64 holds."""
    return int.from_bytes(hashlib.blake2b(value, digest_size=8).digest(), "little") >> 11
