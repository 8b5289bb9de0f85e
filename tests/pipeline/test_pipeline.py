from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest
from google.protobuf import text_format
from tfx.dsl.compiler.compiler import Compiler

from pipeline.config import ConfigError, LogConfig, PipelineConfig, load_config
from pipeline.node import OPTIONAL_NODES
from pipeline.pipeline import create_pipeline
from pipeline.schema_file import find_schema
from schemas.features import load_spec
from schemas.movielens import MOVIELENS
from schemas.tfmd import make_schema

EDGES = {
    "ImpressionLogExampleGen": set(),
    "CuratedSchemaGen": set(),
    "StatisticsGen": {"ImpressionLogExampleGen", "CuratedSchemaGen"},
    "ExampleValidator": {"StatisticsGen", "CuratedSchemaGen"},
    "SchemaGate": {"ExampleValidator", "CuratedSchemaGen"},
    "EarlierStatistics": {"ImpressionLogExampleGen"},
    "DriftGate": {"StatisticsGen", "EarlierStatistics"},
    "Transform": {"ImpressionLogExampleGen", "SchemaGate", "DriftGate"},
    "Trainer": {"Transform"},
    "LatestBlessedModel": set(),
    "Evaluator": {"ImpressionLogExampleGen", "Trainer", "LatestBlessedModel", "SchemaGate"},
    "EvaluationReport": {
        "ImpressionLogExampleGen",
        "StatisticsGen",
        "ExampleValidator",
        "DriftGate",
        "Trainer",
        "LatestBlessedModel",
        "Evaluator",
    },
    "ServingCheck": {"ImpressionLogExampleGen", "SchemaGate", "Trainer", "Evaluator"},
    "Pusher": {"Trainer", "Evaluator", "ServingCheck"},
}


def _nodes(config):
    return {
        node.pipeline_node.node_info.id: node.pipeline_node
        for node in Compiler().compile(create_pipeline(config)).nodes
    }


def test_nodes_and_edges():
    nodes = _nodes(PipelineConfig())
    assert {name: set(node.upstream_nodes) for name, node in nodes.items()} == EDGES


def test_the_tuner_is_between_transform_and_trainer_where_there_are_trials():
    nodes = _nodes(load_config(None, ["tuner.trials=2"]))
    assert {name: set(node.upstream_nodes) for name, node in nodes.items()} == EDGES | {
        "Tuner": {"ImpressionLogExampleGen", "Transform"},
        "Trainer": {"Transform", "Tuner"},
    }
    assert list(nodes)[-6:] == ["Tuner", "Trainer", "Evaluator", "EvaluationReport", "ServingCheck", "Pusher"]
    (channel,) = nodes["Trainer"].inputs.inputs["hyperparameters"].channels
    assert channel.output_key == "best_hyperparameters"
    parameters = {name: value.field_value.string_value for name, value in nodes["Tuner"].parameters.parameters.items()}
    assert parameters["tuner_fn"] == "trainer.tuner.tuner_fn"
    for arguments in ("train_args", "eval_args"):
        assert json.loads(parameters[arguments])["splits"] == ["train"]


def test_the_analyzer_cache_is_of_earlier_days():
    nodes = _nodes(load_config(None, ["transform.analyzer_cache=true"]))
    assert {name: set(node.upstream_nodes) for name, node in nodes.items()} == EDGES | {
        "EarlierAnalysis": {"ImpressionLogExampleGen"},
        "Transform": EDGES["Transform"] | {"EarlierAnalysis"},
    }
    assert "updated_analyzer_cache" in nodes["Transform"].outputs.outputs
    assert nodes["ImpressionLogExampleGen"].parameters.parameters["by_day"].field_value.int_value == 1


def test_transform_and_trainer_are_named_by_their_functions_paths():
    nodes = _nodes(PipelineConfig())

    def parameter(node, name):
        return nodes[node].parameters.parameters[name].field_value.string_value

    assert parameter("Transform", "preprocessing_fn") == "transform.preprocessing.preprocessing_fn"
    assert parameter("Trainer", "run_fn") == "trainer.run.run_fn"
    assert not parameter("Trainer", "module_file")


CHANGES = {
    "training": ("training.learning_rate=0.5", {"Trainer"}),
    "model": ("model.embedding_dim=3", {"Trainer"}),
    "slices": ("evaluation.slices=[[age]]", {"Evaluator"}),
    "a gate": ("evaluation.min_auc=0.7", {"Evaluator"}),
    "a limit of serving": ("serving_check.max_p50_ms=5", {"ServingCheck"}),
    "eval days": ("log.eval_days=3", {"ImpressionLogExampleGen"}),
}


@pytest.mark.parametrize(("change", "changed"), CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_setting_changes_the_parameters_of_the_component_that_uses_it(change, changed):
    before, after = _nodes(load_config(None, [])), _nodes(load_config(None, [change]))
    shown = {"EvaluationReport"}  # which has the whole config
    assert {name for name in before if before[name].parameters != after[name].parameters} == changed | shown


TUNED_CHANGES = {
    "training": ("training.learning_rate=0.5", {"Tuner", "Trainer"}),
    "model": ("model.embedding_dim=3", {"Tuner", "Trainer"}),
    "number of trials": ("tuner.trials=3", {"Tuner"}),
    "a choice": ("tuner.dropout=[0.5]", {"Tuner"}),
}


@pytest.mark.parametrize(("change", "changed"), TUNED_CHANGES.values(), ids=TUNED_CHANGES.keys())
def test_a_changed_setting_repeats_the_tuning_that_depends_on_it(change, changed):
    tuned = ["tuner.trials=2"]
    before, after = _nodes(load_config(None, tuned)), _nodes(load_config(None, [*tuned, change]))
    shown = {"EvaluationReport"}
    assert {name for name in before if before[name].parameters != after[name].parameters} == changed | shown


EDITS = {
    "transform": {"Transform"},
    "trainer": {"Tuner", "Trainer"},
    "schemas": {
        "ImpressionLogExampleGen",
        "SchemaGate",
        "DriftGate",
        "Transform",
        "Tuner",
        "Trainer",
        "Evaluator",
        "EvaluationReport",
        "ServingCheck",
    },
    "components": {
        "ImpressionLogExampleGen",
        "SchemaGate",
        "DriftGate",
        "Evaluator",
        "EvaluationReport",
        "ServingCheck",
    },
}


@pytest.mark.parametrize(("package", "changed"), EDITS.items(), ids=EDITS.keys())
def test_an_edit_of_our_sources_changes_the_parameters_of_what_depends_on_them(package, changed, monkeypatch):
    config = load_config(None, ["tuner.trials=2"])
    before = _nodes(config)
    real = pipeline_module().source_fingerprint
    monkeypatch.setattr(
        pipeline_module(),
        "source_fingerprint",
        lambda *packages, **options: real(*packages, **options) + ("edited" if package in packages else ""),
    )
    after = _nodes(config)
    assert {name for name in before if before[name].parameters != after[name].parameters} == changed


def pipeline_module():
    import pipeline.pipeline

    return pipeline.pipeline


def test_the_metadata_root_and_serving_folders_are_below_runs_dir(tmp_path):
    pipeline = create_pipeline(PipelineConfig(name="mine", runs_dir=str(tmp_path), log=LogConfig(path=str(tmp_path))))
    assert pipeline.pipeline_info.pipeline_root == f"{tmp_path}/mine/root"
    assert pipeline.metadata_connection_config.sqlite.filename_uri == f"{tmp_path}/mine/metadata.sqlite"
    pusher = _nodes(PipelineConfig(name="mine", runs_dir=str(tmp_path)))["Pusher"]
    assert f"{tmp_path}/mine/serving" in str(pusher.parameters.parameters["push_destination"])


def test_the_schema_comes_with_the_spec(tmp_path):
    assert find_schema(PipelineConfig(), MOVIELENS).name == "movielens.pbtxt"
    curated = make_schema(MOVIELENS)
    curated.feature[0].presence.min_fraction = 0.5  # curating bounds is what the file is for
    file = tmp_path / "curated.pbtxt"
    file.write_text(text_format.MessageToString(curated))
    assert find_schema(PipelineConfig(schema_file=str(file)), MOVIELENS) == file


BOUNDED = """
from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature
SPEC = FeatureSpec(
    "bounded",
    (
        NumericFeature("price", minimum=0, maximum=9.5),
        NumericFeature("stock", dtype="int64", minimum=1),
        IdFeature("country", 10, dtype="string", domain=("de", "fr")),
        IdSequence("viewed", 10, max_length=3, min_presence=0.5),
    ),
)
"""
BOUNDS = {
    "minimum of price": ("price", lambda entry: entry.float_domain.ClearField("min")),
    "maximum of price": ("price", lambda entry: setattr(entry.float_domain, "max", 10)),
    "minimum of stock": ("stock", lambda entry: setattr(entry.int_domain, "min", 0)),
    "domain of country": ("country", lambda entry: entry.string_domain.value.append("gb")),
    "min_presence of viewed": ("viewed", lambda entry: setattr(entry.presence, "min_fraction", 0.1)),
}


@pytest.mark.parametrize(("column", "edit"), BOUNDS.values(), ids=BOUNDS.keys())
def test_a_bound_of_the_spec_that_the_schema_beside_it_has_otherwise_is_told(
    column, edit, tmp_path, request, monkeypatch
):
    module = f"spec_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(BOUNDED)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = PipelineConfig(features=f"{module}:SPEC")
    spec = load_spec(config.features)
    schema = make_schema(spec)
    schema.feature[0].presence.min_fraction = 0.6
    file = tmp_path / "bounded.pbtxt"
    file.write_text(text_format.MessageToString(schema))
    assert find_schema(config, spec) == file  # where the spec sets none it may have one
    edit(next(feature for feature in schema.feature if feature.name == column))
    file.write_text(text_format.MessageToString(schema))
    bound = request.node.callspec.id
    with pytest.raises(
        ConfigError, match=rf"schema .* and feature spec .* differ in {bound}; make it with: .* --force"
    ):
        find_schema(config, spec)
    elsewhere = file.rename(tmp_path / "of_the_tests.pbtxt")
    assert find_schema(dataclasses.replace(config, schema_file=str(elsewhere)), spec) == elsewhere


def _without_gender():
    schema = make_schema(MOVIELENS)
    del schema.feature[[feature.name for feature in schema.feature].index("gender")]
    return text_format.MessageToString(schema)


def _of_sparse_columns():
    schema = make_schema(MOVIELENS)
    schema.ClearField("tensor_representation_group")  # as schemas were before
    return text_format.MessageToString(schema)


BAD_SCHEMAS = {
    "missing": (None, "no schema at .*; make it with: python -m schemas.tfmd schemas.movielens:MOVIELENS "),
    "not a schema": ("feature: 1 2 3", "is not a TFMD schema"),
    "another spec's": (_without_gender(), "differ in gender; make it with"),
    "of sparse columns": (_of_sparse_columns(), "differ in age, gender, .*, user_id, user_impressions; make it with"),
}


@pytest.mark.parametrize(("text", "message"), BAD_SCHEMAS.values(), ids=BAD_SCHEMAS.keys())
def test_a_bad_schema_file_is_one_sentence_with_the_remedy(text, message, tmp_path):
    file = pathlib.Path(tmp_path) / "schema.pbtxt"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        create_pipeline(PipelineConfig(schema_file=str(file)))


def test_nothing_waits_for_a_node_that_a_run_may_go_on_without():
    nodes = _nodes(PipelineConfig())
    assert set(nodes) >= OPTIONAL_NODES
    assert not any(OPTIONAL_NODES & set(node.upstream_nodes) for node in nodes.values())
