"""TFX's Evaluator, which is told the training split's ids and tells the gates that failed."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import apache_beam as beam
import tensorflow_model_analysis as tfma
from absl import logging
from google.protobuf import json_format
from tensorflow_model_analysis.proto import config_pb2
from tfx.components import Evaluator
from tfx.components.evaluator import constants
from tfx.components.evaluator.executor import Executor as TfxExecutor
from tfx.components.util import tfxio_utils
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.types.standard_component_specs import (
    BASELINE_MODEL_KEY,
    BLESSING_KEY,
    EVAL_CONFIG_KEY,
    EVALUATION_KEY,
    EXAMPLES_KEY,
    SCHEMA_KEY,
)
from tfx.utils import io_utils, path_utils

from components.evaluation.extractors import read_settings, slice_columns, with_training_ids
from components.evaluation.results import Evaluation, read_evaluation
from components.evaluation.training_ids import WriteTrainingIds, training_fields
from schemas.features import FeatureSpec, IdSequence, load_spec
from schemas.model_card import EVALUATION_PROPERTY, FEATURE_SPEC_ASSET

FAILED_GATES = "failed_gates"  # the ModelEvaluation's property: a sentence for each, on lines of their own
_TRAINING_IDS = "training_ids"  # a folder in the ModelEvaluation


class Executor(TfxExecutor):
    """Runs TFX's executor, which measures and blesses, and then says at the artifact why it did not."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:  # noqa: N802 TFX calls it so
        """Runs the evaluation.

        Raises:
            ValueError: The baseline reads a feature that the examples do not have, or have in another form: it would be
                asked without it.
        """
        for baseline in input_dict.get(BASELINE_MODEL_KEY) or ():
            config = json_format.Parse(exec_properties[EVAL_CONFIG_KEY], config_pb2.EvalConfig())
            _check_features(load_spec(read_settings(config)["features"]), baseline.uri)
        super().Do(input_dict, output_dict, self._with_training_ids(input_dict, output_dict, exec_properties))
        artifact = artifact_utils.get_single_instance(output_dict[EVALUATION_KEY])
        found = read_evaluation(artifact.uri)
        blessing = artifact_utils.get_single_instance(output_dict[BLESSING_KEY])
        if found.blessed and not blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY):
            for kind in tfma.load_validation_result(artifact.uri).missing_slices:
                logging.warning("no slice by %s is in the eval split, or large enough", " and ".join(kind.feature_keys))
            _bless(blessing)
        blessing.set_string_custom_property(EVALUATION_PROPERTY, json.dumps(for_card(found)))
        failed = [gate.sentence for gate in found.gates if not gate.passed]
        artifact.set_string_custom_property(FAILED_GATES, "\n".join(failed))

    def _with_training_ids(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> Any:
        """Returns the properties that name the training split's ids, which it writes where a slice needs them."""
        config = json_format.Parse(exec_properties[EVAL_CONFIG_KEY], config_pb2.EvalConfig())
        fields = training_fields(load_spec(read_settings(config)["features"]), slice_columns(config))
        if not fields:
            return exec_properties
        folder = os.path.join(artifact_utils.get_single_uri(output_dict[EVALUATION_KEY]), _TRAINING_IDS)
        schema = io_utils.SchemaReader().read(
            io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict[SCHEMA_KEY]))
        )
        examples = input_dict[EXAMPLES_KEY]
        make_tfxio = tfxio_utils.get_tfxio_factory_from_artifact(examples, telemetry_descriptors=["ctr"], schema=schema)
        with self._make_beam_pipeline() as pipeline:
            batches = []
            for number, uri in enumerate(artifact_utils.get_split_uris(examples, "train")):
                tfxio = make_tfxio(io_utils.all_files_pattern(uri)).Project([field.name for field in fields])
                batches.append(pipeline | f"Read{number}" >> tfxio.BeamSource())
            _ = batches | beam.Flatten() | "TrainingIds" >> WriteTrainingIds(fields, folder)
        told = json_format.MessageToJson(with_training_ids(config, folder), preserving_proto_field_name=True)
        return exec_properties | {EVAL_CONFIG_KEY: told}


def _check_features(spec: FeatureSpec, baseline: str) -> None:
    file = os.path.join(path_utils.serving_model_path(baseline), FEATURE_SPEC_ASSET)
    if not fileio.exists(file):
        return
    with fileio.open(file) as content:
        features = json.loads(content.read())["features"]
    before = {feature["name"]: _form(feature["dtype"], feature["kind"]) for feature in features}
    now = {feature.name: _form(feature.dtype, type(feature).__name__) for feature in spec.features}
    other = [f"{name}, which is {now.get(name, 'not there')} now" for name in before if before[name] != now.get(name)]
    if other:
        raise ValueError(
            f"the model in service, {baseline}, reads {', '.join(other)}: on these impressions it would be worse than "
            "it is, and a worse one could be blessed. To judge the new model by its own figures, for this once: "
            "--set evaluation.baseline=false, with --set evaluation.min_auc=... . A column that is there under "
            "another name keeps the feature's name by log.columns"
        )


def _form(dtype: str, kind: str) -> str:
    return f"a list of {dtype}" if kind == IdSequence.__name__ else dtype


def _bless(blessing: Artifact) -> None:
    """Blesses as TFX's executor does, in the place of its refusal."""
    fileio.remove(os.path.join(blessing.uri, constants.NOT_BLESSED_FILE_NAME))
    io_utils.write_string_file(os.path.join(blessing.uri, constants.BLESSED_FILE_NAME), "")
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, constants.BLESSED_VALUE)


def for_card(evaluation: Evaluation) -> dict[str, Any]:
    """Returns what a model card says of an evaluation: the metrics on all impressions, and the gates."""
    whole = evaluation.slices[0]
    return {
        "examples": whole.num_examples,
        "metrics": {
            name: figure.value if math.isfinite(figure.value) else None for name, figure in whole.candidate.items()
        },
        "gates": [gate.sentence for gate in evaluation.gates],
    }


class GatedEvaluator(Evaluator):
    """TFX's Evaluator; see `components.evaluation.extractors` for what it does before slicing."""

    EXECUTOR_SPEC = BeamExecutorSpec(Executor)
