"""The one definition of the pipeline, which every runner runs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

from tensorflow_data_validation import StatsOptions
from tfx.components import ExampleValidator, Trainer, Tuner
from tfx.dsl.components.common.resolver import Resolver
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import trainer_pb2
from tfx.types.channel import Channel
from tfx.types.standard_artifacts import ExampleStatistics, Model, ModelBlessing, TransformCache

from components.arrow_examples.component import ArrowStatisticsGen, ArrowTransform
from components.curated_schema_gen.component import CuratedSchemaGen
from components.drift_gate.component import DriftGate
from components.earlier.artifacts import EarlierArtifactStrategy
from components.earlier.model import BaselineStrategy, EarlierModelStrategy
from components.evaluation.component import GatedEvaluator
from components.evaluation.extractors import custom_extractors
from components.evaluation_report.component import EvaluationReport
from components.impression_log_example_gen.component import ImpressionLogExampleGen
from components.model_pusher.component import ModelPusher
from components.schema_gate.component import SchemaGate
from components.serving_check.component import ServingCheck
from components.transform_by_day.component import TransformByDay
from pipeline.beam import beam_args
from pipeline.config import PipelineConfig, config_to_json
from pipeline.evaluation import make_eval_config
from pipeline.fingerprint import source_fingerprint
from pipeline.schema_file import find_schema
from schemas.features import NumericFeature, load_spec
from trainer.run import run_fn
from trainer.tuner import tuner_fn
from transform.preprocessing import preprocessing_fn


def create_pipeline(config: PipelineConfig) -> Pipeline:
    """Returns the pipeline: log -> examples -> validated -> transformed (-> tuned) -> trained -> evaluated -> pushed.

    Args:
        config: The pipeline's settings.

    Raises:
        ConfigError: The schema file is missing or does not fit the feature spec.
        ValueError: The feature spec cannot be loaded.
    """
    spec = load_spec(config.features)
    home = pathlib.Path(config.runs_dir).resolve() / config.name
    components_sources = source_fingerprint("components", "schemas")
    # Only numbers are analyzed.
    by_day = config.transform.analyzer_cache and any(isinstance(feature, NumericFeature) for feature in spec.features)

    example_gen = ImpressionLogExampleGen(
        log_path=str(pathlib.Path(config.log.path).resolve()),
        features=config.features,
        eval_days=config.log.eval_days,
        train_days=config.log.train_days,
        as_of=config.log.as_of,
        key=config.log.key,
        columns=config.log.columns,
        timestamp_unit=config.log.timestamp_unit,
        max_raw_length=config.log.max_raw_length,
        max_bad_fraction=config.log.max_bad_fraction,
        by_day=by_day,
        quarantine=str(home / "quarantine"),
        source_fingerprint=_digest(components_sources, repr(spec)),
    )
    schema_gen = CuratedSchemaGen(schema_file=str(find_schema(config, spec)))
    statistics_gen = ArrowStatisticsGen(
        examples=example_gen.outputs["examples"],
        schema=schema_gen.outputs["schema"],
        stats_options=StatsOptions(use_sketch_based_topk_uniques=True),  # exact counts of ids take most of the time
    ).with_id("StatisticsGen")
    validator = ExampleValidator(statistics=statistics_gen.outputs["statistics"], schema=schema_gen.outputs["schema"])
    gate = SchemaGate(
        anomalies=validator.outputs["anomalies"],
        schema=schema_gen.outputs["schema"],
        source_fingerprint=components_sources,
    )
    earlier_statistics = Resolver(
        strategy_class=EarlierArtifactStrategy,
        examples=example_gen.outputs["examples"],
        statistics=Channel(type=ExampleStatistics),
    ).with_id("EarlierStatistics")
    drift_gate = DriftGate(
        statistics=statistics_gen.outputs["statistics"],
        earlier_statistics=earlier_statistics.outputs["statistics"],
        bounds=config.drift.bounds_of(spec),
        source_fingerprint=components_sources,
    )
    earlier_analysis = None
    if by_day:
        earlier_analysis = Resolver(
            strategy_class=EarlierArtifactStrategy,
            examples=example_gen.outputs["examples"],
            analyzer_cache=Channel(type=TransformCache),
        ).with_id("EarlierAnalysis")
    transform = (TransformByDay if earlier_analysis else ArrowTransform)(
        examples=example_gen.outputs["examples"],
        schema=gate.outputs["schema"],
        preprocessing_fn=_dotted_path(preprocessing_fn),
        custom_config={
            "features": config.features,
            "fingerprint": _digest(source_fingerprint("transform", "schemas"), repr(spec)),
        },
        analyzer_cache=earlier_analysis.outputs["analyzer_cache"] if earlier_analysis else None,
        disable_analyzer_cache=not earlier_analysis,
        disable_statistics=True,
    ).with_id("Transform")
    transform.add_upstream_node(drift_gate)
    training = {
        "features": config.features,
        "model": json.dumps(dataclasses.asdict(config.model)),
        "training": json.dumps(dataclasses.asdict(config.training)),
        "fingerprint": _digest(source_fingerprint("trainer", "schemas"), repr(spec)),
    }
    tuner = None
    if config.tuner.trials:
        tuner = Tuner(
            tuner_fn=_dotted_path(tuner_fn),
            examples=example_gen.outputs["examples"],  # in the order of the log, which Transform's are not
            transform_graph=transform.outputs["transform_graph"],
            train_args=trainer_pb2.TrainArgs(splits=["train"]),
            eval_args=trainer_pb2.EvalArgs(splits=["train"]),  # never the split that the Evaluator judges on
            custom_config=training | {"tuner": json.dumps(dataclasses.asdict(config.tuner))},
        )
    earlier = None
    if config.training.warm_start:
        earlier = Resolver(
            strategy_class=EarlierModelStrategy,
            examples=example_gen.outputs["examples"],
            model=Channel(type=Model),
            model_blessing=Channel(type=ModelBlessing),
        ).with_id("EarlierModel")
    trainer = Trainer(
        run_fn=_dotted_path(run_fn),
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        train_args=trainer_pb2.TrainArgs(splits=["train"]),
        eval_args=trainer_pb2.EvalArgs(splits=["eval"]),
        hyperparameters=tuner.outputs["best_hyperparameters"] if tuner else None,
        base_model=earlier.outputs["model"] if earlier else None,
        custom_config=training | {"checkpoints": str(home / "checkpoints")},
    )
    baseline = Resolver(
        strategy_class=BaselineStrategy,
        model=Channel(type=Model),
        model_blessing=Channel(type=ModelBlessing),
    ).with_id("LatestBlessedModel")
    compared = baseline.outputs["model"] if config.evaluation.baseline else None
    fingerprint = _digest(components_sources, repr(spec))
    eval_config = make_eval_config(config.evaluation, spec, config.features, fingerprint)
    evaluator = GatedEvaluator(
        examples=example_gen.outputs["examples"],
        model=trainer.outputs["model"],
        baseline_model=compared,
        eval_config=eval_config,
        module_path=custom_extractors.__module__,
        schema=gate.outputs["schema"],
    ).with_id("Evaluator")
    # Before the Pusher, so that there is a report where the push fails.
    report = EvaluationReport(
        evaluation=evaluator.outputs["evaluation"],
        model=trainer.outputs["model"],
        baseline_model=compared,
        examples=example_gen.outputs["examples"],
        statistics=statistics_gen.outputs["statistics"],
        anomalies=validator.outputs["anomalies"],
        drift=drift_gate.outputs["drift"],
        features=config.features,
        config=config_to_json(config),
        source_fingerprint=source_fingerprint("components", "schemas", suffixes=(".py", ".j2", ".css", ".js")),
    )
    serving_check = ServingCheck(
        model=trainer.outputs["model"],
        examples=example_gen.outputs["examples"],
        schema=gate.outputs["schema"],
        settings=dataclasses.asdict(config.serving_check),
        eval_config=eval_config,
        source_fingerprint=components_sources,
    )
    serving_check.add_upstream_node(evaluator)
    pusher = ModelPusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=serving_check.outputs["blessing"],
        serving=str(home / "serving"),
        keep_versions=config.pusher.keep_versions,
    ).with_id("Pusher")
    return Pipeline(
        pipeline_name=config.name,
        pipeline_root=str(home / "root"),
        components=[
            example_gen,
            schema_gen,
            statistics_gen,
            validator,
            gate,
            earlier_statistics,
            drift_gate,
            *([earlier_analysis] if earlier_analysis else []),
            transform,
            *([tuner] if tuner else []),
            *([earlier] if earlier else []),
            trainer,
            baseline,
            evaluator,
            report,
            serving_check,
            pusher,
        ],
        enable_cache=True,
        metadata_connection_config=sqlite_metadata_connection_config(str(home / "metadata.sqlite")),
        beam_pipeline_args=beam_args(config.beam),
    )


def _dotted_path(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
