"""The configuration of a pipeline: one YAML file per data set, with `--set` overrides."""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
import typing
from typing import Annotated, Any

import pydantic
import yaml
from pydantic import Field
from pydantic.dataclasses import dataclass

from trainer.config import STRICT, ModelConfig, NonNegative, Positive, TrainingConfig

CONFIGS = pathlib.Path(__file__).parent / "configs"


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says which key, why, and what to write instead."""


@dataclass(frozen=True, config=STRICT)
class LogConfig:
    """The impression log.

    Attributes:
        path: Folder with a `day=YYYY-MM-DD/` folder of Parquet files for each day.
        eval_days: The newest days in the log that have rows are the eval split: how many.
        train_days: The days before them are the training split: how many, or null for all.
    """

    path: str = "logs/movielens"
    eval_days: Positive = 1
    train_days: Positive | None = None


@dataclass(frozen=True, config=STRICT)
class EvaluationConfig:
    """What is measured on the eval split, and what a model needs to be blessed.

    Attributes:
        slices: Each a list of raw columns; metrics are computed for every combination of their values.
        min_auc: Least AUC.
        max_log_loss: Greatest log loss, or null.
        max_auc_loss: By how much the AUC may be below that of the latest blessed model.
        min_slice_examples: Slices with fewer examples are left out of the results.
    """

    slices: tuple[tuple[str, ...], ...] = ()
    min_auc: Annotated[float, Field(ge=0, le=1)] = 0.5
    max_log_loss: NonNegative | None = None
    max_auc_loss: NonNegative = 0.005
    min_slice_examples: Positive = 1


@dataclass(frozen=True, config=STRICT)
class PipelineConfig:
    """One pipeline.

    Attributes:
        name: Names the pipeline, and its folder below `runs_dir`.
        features: The feature spec, as `package.module:NAME`.
        schema_file: The curated TFMD schema; null for the one that comes with `features`' module, `<spec name>.pbtxt`.
        runs_dir: Folder of all pipelines' outputs.
        log: The impression log.
        model: The DeepFM.
        training: Its training.
        evaluation: Metrics, slices and thresholds.
        beam_args: Flags for Apache Beam; empty for its direct runner on this machine.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")] = "movielens"
    features: str = "schemas.movielens:MOVIELENS"
    schema_file: str | None = None
    runs_dir: str = "runs"
    log: LogConfig = LogConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    beam_args: tuple[str, ...] = ()
