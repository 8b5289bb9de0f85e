"""What is tuned of a model and of its training, and how. Without Keras, because every command reads the config."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from trainer.config import STRICT, ModelConfig, NonNegative, Positive, Rate, TrainingConfig


@dataclass(frozen=True, config=STRICT)
class TunerConfig:
    """The tuning: a random search, off by default.

    The lists are what a setting of `model` or `training` is tried with besides the value that it has there; an empty
    list leaves it at that.

    Attributes:
        trials: Trainings, at most; the first one is that of the config's own values. 0 for no tuning.
        epochs: Passes over the training rows in each of them, at most, or null for `training.max_epochs`.
        validation_share: Share of the training split on which trials are compared, and which they do not train on: its
            newest rows. Never the eval split, see `docs/adr/0009`.
        learning_rate: For `training.learning_rate`.
        table_learning_rate: For `training.table_learning_rate`; where that is null, it is `training.learning_rate`.
        embedding_dim: For `model.embedding_dim`.
        hidden_units: For `model.hidden_units`.
        dropout: For `model.dropout`.
        id_dropout: For `model.id_dropout`.
        embedding_stddev: For `model.embedding_stddev`.
        embedding_l2: For `model.embedding_l2`.
        table_l2: For `model.table_l2`.
        tower_l2: For `model.tower_l2`.
    """

    trials: Annotated[int, Field(ge=0)] = 0
    epochs: Positive | None = None
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    learning_rate: tuple[Annotated[float, Field(gt=0)], ...] = (0.0003, 0.001, 0.003)
    table_learning_rate: tuple[Annotated[float, Field(gt=0)], ...] = ()
    embedding_dim: tuple[Positive, ...] = (4, 8, 16, 32)
    hidden_units: tuple[tuple[Positive, ...], ...] = ((64, 32), (128, 64), (256, 128))
    dropout: tuple[Rate, ...] = (0.0, 0.2)
    id_dropout: tuple[Rate, ...] = (0.0, 0.05)
    embedding_stddev: tuple[NonNegative, ...] = ()
    embedding_l2: tuple[NonNegative, ...] = (0.0, 0.01, 0.05, 0.2)
    table_l2: tuple[NonNegative, ...] = ()
    tower_l2: tuple[NonNegative, ...] = ()

    def __post_init__(self) -> None:
        if self.trials and not any(isinstance(values, tuple) and values for values in vars(self).values()):
            raise ValueError(f"trials is {self.trials}, but there is nothing to choose from: every list is empty")


def find_choices(tuner: TunerConfig, model: ModelConfig, training: TrainingConfig) -> dict[str, list[Any]]:
    """Returns for each tuned setting the values to choose from, without repetitions: first the one that it has.

    KerasTuner has no choices between lists, so `hidden_units` are JSON text.
    """
    own = dataclasses.asdict(model) | dataclasses.asdict(training)
    own["table_learning_rate"] = training.table_learning_rate or training.learning_rate
    return {
        name: [_to_scalar(value) for value in dict.fromkeys((own[name], *values))]
        for name, values in dataclasses.asdict(tuner).items()
        if name in own and values
    }


def with_hyperparameters(
    model: ModelConfig, training: TrainingConfig, values: Mapping[str, Any]
) -> tuple[ModelConfig, TrainingConfig]:
    """Returns the settings with one choice for each tuned one.

    Args:
        model: The model's settings.
        training: The training's settings.
        values: One of each list of `find_choices`.

    Raises:
        ValueError: There is no such setting, or it cannot have that value.
    """
    changes = from_scalars(values)
    of_model = {name: changes.pop(name) for name in _names(model) if name in changes}
    of_training = {name: changes.pop(name) for name in _names(training) if name in changes}
    if changes:
        raise ValueError(f"neither the model nor its training has a setting {', '.join(changes)}")
    return dataclasses.replace(model, **of_model), dataclasses.replace(training, **of_training)


def from_scalars(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns chosen values as the settings have them."""
    return {name: tuple(json.loads(value)) if isinstance(value, str) else value for name, value in values.items()}


def _to_scalar(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, tuple) else value


def _names(config: ModelConfig | TrainingConfig) -> list[str]:
    return [field.name for field in dataclasses.fields(config)]
