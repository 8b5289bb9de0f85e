"""The TFX Trainer's entry, alone or as the chief of several workers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import pathlib

import pydantic
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from schemas import training_log
from schemas.features import FeatureSpec, load_spec
from schemas.training_log import TrainingLog
from trainer.checkpoints import remove_whole
from trainer.cluster import Cluster, read_chiefs_cluster
from trainer.config import ModelConfig, TrainingConfig
from trainer.connection import connect
from trainer.export import export
from trainer.hyperparameters import with_hyperparameters
from trainer.input import read_chunks
from trainer.loop import fit
from trainer.warm_start import FOLDER, HANDED_ON, WARM, hand_on, read_origin, read_shape, save_state
from trainer.workers import ALONE, Workers

_LOGGER = logging.getLogger(__name__)
_NUM_NAMED = 3  # of what is cold; the log has all

# What the chief tells the other workers of its arguments.
_OF_ALL = (
    "train_files",
    "eval_files",
    "transform_graph_path",
    "base_model",
    "hyperparameters",
    "custom_config",
    "serving_model_dir",
    "model_run_dir",
)


def run_fn(fn_args: FnArgs) -> None:
    """Trains a DeepFM on transformed examples and exports it with the transformation.

    Where `TF_CONFIG` names other workers, with them: this process is their chief, see `docs/multi-worker.md`.

    Args:
        fn_args: `custom_config` has `features` (the spec's path), `model` and `training` (the fields of `ModelConfig`
            and `TrainingConfig`) and `checkpoints`, a folder that outlives a run that is killed. `hyperparameters`,
            where there are any, have the Tuner's choice, which goes before `custom_config`'s, but for `when_warm`.
            `base_model`, where there is one, is what a `warm_start` goes on from. The SavedModel goes to
            `serving_model_dir`, the figures of the epochs and what a later training can go on from beside it,
            TensorBoard's logs to `model_run_dir`.

    Raises:
        WorkersError: The workers of `TF_CONFIG` cannot train together.
    """
    cluster = read_chiefs_cluster(os.environ.get("TF_CONFIG"))
    if cluster is None:
        train_and_export(fn_args)
        return
    with connect(cluster, read_settings(fn_args)[2].workers_minutes) as workers:
        workers.text(json.dumps({name: getattr(fn_args, name) for name in _OF_ALL}))
        train_and_export(fn_args, workers)


def help_to_train(cluster: Cluster, wait_minutes: float) -> None:
    """Takes part in the chief's training, whose `run_fn` says what is trained on what.

    Args:
        cluster: The workers; this one is not the chief.
        wait_minutes: How long it waits for the chief and the other workers.

    Raises:
        WorkersError: See `trainer.connection.connect`.
    """
    with connect(cluster, wait_minutes) as workers:
        train_and_export(FnArgs(**json.loads(workers.text(""))), workers)


def train_and_export(fn_args: FnArgs, workers: Workers = ALONE) -> None:
    """Does what `run_fn` does, with the other workers; only the chief writes."""
    spec, model_config, training_config = read_settings(fn_args)
    if fn_args.hyperparameters:
        values = fn_args.hyperparameters["values"]
        model_config, training_config = with_hyperparameters(model_config, training_config, values)

    transform_output = tft.TFTransformOutput(fn_args.transform_graph_path)
    parsing = transform_output.transformed_feature_spec()
    checkpoints_dir = _checkpoints_dir(fn_args)
    earlier_state, start = _earlier_state(fn_args, model_config, training_config)
    workers.agree(start or "a training that is to start cold")
    if earlier_state:
        training_config = training_config.of_warm()
    model, training = fit(
        spec,
        model_config,
        training_config,
        read_chunks(fn_args.train_files, parsing, num_files=4),
        read_chunks(fn_args.eval_files, parsing),
        os.path.join(fn_args.model_run_dir, "tensorboard"),
        checkpoints_dir,
        earlier_state,
        workers,
    )
    if not workers.is_chief:
        return
    if training_config.warm_start:
        state = _state_beside(fn_args.serving_model_dir)
        if earlier_state and training_config.warm_start_from == "cold":
            hand_on(model, earlier_state, training.cold, state, training_config.negative_sampling_rate)
        else:
            save_state(model, state, training_config.negative_sampling_rate, is_warm=earlier_state is not None)
    for table in model.tables:
        table.add_slots(0)  # what is served has no use for them
    if training.cold:
        more = len(training.cold) - _NUM_NAMED
        start += f"; cold are {', '.join(training.cold[:_NUM_NAMED])}{f' and {more} more' if more > 0 else ''}"
    log = TrainingLog.from_history(training.history, f"val_{training_config.monitor}", start)
    card = {
        "model": dataclasses.asdict(model_config),
        "training": dataclasses.asdict(training_config),
        "epochs": {name: [epoch[name] for epoch in log.epochs] for name in training.history},
    }
    export(model, transform_output, spec, fn_args.serving_model_dir, training_config.negative_sampling_rate, card)
    pathlib.Path(fn_args.serving_model_dir).with_name(training_log.FILE).write_text(log.to_json(), encoding="utf-8")
    remove_whole(pathlib.Path(checkpoints_dir).parent)


def read_settings(fn_args: FnArgs) -> tuple[FeatureSpec, ModelConfig, TrainingConfig]:
    """Returns the data set and the settings that `custom_config` has; see `run_fn`."""
    return (
        load_spec(fn_args.custom_config["features"]),
        pydantic.TypeAdapter(ModelConfig).validate_json(fn_args.custom_config["model"]),
        pydantic.TypeAdapter(TrainingConfig).validate_json(fn_args.custom_config["training"]),
    )


def _earlier_state(
    fn_args: FnArgs, model_config: ModelConfig, training_config: TrainingConfig
) -> tuple[pathlib.Path | None, str]:
    """Returns what the base model's training has left, if there is any and it is wanted, and how this one begins."""
    if not training_config.warm_start:
        return None, ""
    state = _state_beside(fn_args.base_model) if fn_args.base_model else None
    if state and state.is_dir() and training_config.warm_start_from != "nothing":
        own = json.loads(json.dumps(dataclasses.asdict(model_config)))  # with lists, as the state has them
        other = {name: was for name, was in read_shape(state).items() if was != own[name]}
        if not other:
            origin = read_origin(state)
            is_other = origin == {"cold": WARM, "latest": HANDED_ON}[training_config.warm_start_from]
            return state, f"warm start from {state.parent}{f', which has the state of {origin}' if is_other else ''}"
        # The small steps of a warm training would teach rows, or a tower, that know nothing yet hardly anything.
        told = " and ".join(f"{name} is {own[name]}, and was {was}" for name, was in other.items())
        start = f"cold start: {told} for {state.parent}"
    elif training_config.warm_start_from == "nothing":
        start = "cold start: training.warm_start_from is nothing"
    elif not state:
        start = "cold start: there is no earlier blessed model"
    else:
        start = f"cold start: the earlier blessed model was trained without training.warm_start, {state.parent}"
    _LOGGER.info("%s", start)
    return None, start


def _state_beside(saved_model: str) -> pathlib.Path:
    return pathlib.Path(saved_model).parent / FOLDER


def _checkpoints_dir(fn_args: FnArgs) -> str:
    """Returns where this training keeps its state: a folder that a training with other inputs or settings has not."""
    inputs = [fn_args.train_files, fn_args.eval_files, fn_args.transform_graph_path, fn_args.base_model]
    identity = json.dumps([*inputs, fn_args.custom_config, fn_args.hyperparameters], sort_keys=True)
    return os.path.join(fn_args.custom_config["checkpoints"], hashlib.sha256(identity.encode()).hexdigest()[:16])
