"""What can be set of the model and of its training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field
from pydantic.dataclasses import dataclass

# Unknown keys are errors, and "8" is not 8.
STRICT = pydantic.ConfigDict(extra="forbid", strict=True)

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0)]
# Keras's, of those that make one number of one.
Activation = Literal[
    "relu", "leaky_relu", "relu6", "elu", "selu", "celu", "gelu", "silu", "swish", "mish", "softplus", "softsign",
    "tanh", "hard_tanh", "sigmoid", "hard_sigmoid", "hard_silu", "exponential", "linear",
]  # fmt: skip


def _of_a_warm_training(settings: dict[str, Any]) -> dict[str, Any]:
    """Checks each of them as `TrainingConfig` does, whose errors say which one is wrong."""
    for name in NOT_WHEN_WARM:
        if name in settings:
            raise ValueError(f"{name} cannot be another in a warm training")
    TrainingConfig(**settings)
    return settings


# What says whether a training is warm, what the state is a part of, and what is needed before that is known.
NOT_WHEN_WARM = (
    *("warm_start", "warm_start_from", "when_warm"),
    *("optimizer", "table_optimizer", "negative_sampling_rate", "workers_minutes"),
)
WarmSettings = Annotated[dict[str, Any], pydantic.AfterValidator(_of_a_warm_training)]


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """The DeepFM.

    Attributes:
        embedding_dim: Length of an id's factor vector.
        hidden_units: Widths of the deep tower's hidden layers.
        activation: Activation of the hidden layers, by its Keras name.
        dropout: Share of a hidden layer's outputs dropped in training.
        batch_norm: Normalize each hidden layer's inputs to its activation over the batch.
        use_linear: Whether there is a linear term. Alone it is logistic regression.
        use_fm: Whether there is an FM term. With the linear term alone it is a factorization machine.
        use_deep: Whether there is a deep tower.
        fm_over: What the FM term pairs: the `fields`' pooled vectors, or all `positions` of all fields.
        id_dropout: Share of the ids that training reads as unseen ones, so that the row for these learns what an id is
            worth of which nothing is known. Ids that are not in the training split have its values afterwards.
        id_dropout_of: That share of features that have one of their own, by name. A high one of a user's id pays where
            most users to come are new: the model then does not lean on what it knows of training's users alone.
        embedding_stddev: Standard deviation of the initial factors.
        fm_numbers: Whether the FM term also pairs a vector for each number: the number times a learned vector.
        attention_units: Width of the hidden layer of a sequence's `target_attention`.
        embedding_l2: Weight of the squared norm of a batch's looked-up factors and linear weights, per example.
        table_l2: lambda of the whole table's penalty `lambda / 2 * |W|^2`. Applied once an epoch: every row shrinks by
            the product of (1 - rate * lambda) over the epoch's steps, which is what as many steps of gradient descent
            on the penalty alone make of it. No step pays for it.
        tower_l2: lambda of the deep tower's penalty `lambda / 2 * |W|^2`, over its matrices, in the loss.
        xla: Whether XLA compiles the deep tower for training. It does not pay on CPUs, see `docs/adr/0008`.
        mixed_precision: Whether the deep tower computes in bfloat16. It does not pay on CPUs without bfloat16 units.
    """

    embedding_dim: Positive = 8
    hidden_units: tuple[Positive, ...] = (64, 32)
    activation: Activation = "relu"
    dropout: Rate = 0.0
    batch_norm: bool = False
    use_linear: bool = True
    use_fm: bool = True
    use_deep: bool = True
    fm_over: Literal["positions", "fields"] = "fields"
    id_dropout: Rate = 0.0
    id_dropout_of: dict[str, Rate] = Field(default_factory=dict)
    embedding_stddev: NonNegative = 0.0001
    fm_numbers: bool = False
    attention_units: Positive = 16
    embedding_l2: NonNegative = 0.0
    table_l2: NonNegative = 0.0
    tower_l2: NonNegative = 0.0
    xla: bool = False
    mixed_precision: bool = False

    def __post_init__(self) -> None:
        if not (self.use_linear or self.use_fm or self.use_deep):
            raise ValueError("use_linear, use_fm and use_deep are all false: a model needs a term")

    def id_dropout_by_name(self, fields: Sequence[str]) -> list[float]:
        """Returns each id field's share of ids that training reads as unseen ones.

        Raises:
            ValueError: `id_dropout_of` names a feature that is none of them.
        """
        for name in self.id_dropout_of:
            if name not in fields:
                raise ValueError(
                    f"id_dropout_of: there is no id feature {name}; they are {', '.join(fields) or 'none'}"
                )
        return [self.id_dropout_of.get(name, self.id_dropout) for name in fields]


@dataclass(frozen=True, config=STRICT)
class TrainingConfig:
    """The training.

    Attributes:
        batch_size: Examples per step.
        max_epochs: Passes over the training split, at most.
        max_steps: Batches in all, at most, or null; the pass that it ends in is evaluated as a whole one is.
        learning_rate: Step size, of all weights but the embedding table's.
        table_learning_rate: That of the embedding table; null for the same.
        warmup_steps: Steps over which the step size grows from 0 to `learning_rate`.
        decay_steps: Steps after them over which it falls to 0 along a cosine; 0 for a constant one.
        reduce_on_plateau: Factor of the step size after an epoch without a better `monitor`, or null; not with
            `warmup_steps` or `decay_steps`, which determine the step size themselves.
        average_from: The epoch, from 1, from whose end on the model has the mean of the weights at the epochs' ends,
            see `trainer/average.py`; 0 for a mean that has the weights in it that a warm start goes on from, too, where
            nothing is cold; null for an epoch's own weights.
        optimizer: The optimizer of all weights but the embedding table's, by its Keras name. Not `ftrl`, which makes
            weights of its slots: those that a tower begins with are lost, and what it has learned where the step size
            changes.
        table_optimizer: How the embedding table's rows are updated, see `trainer/optimizers.py`.
        patience: Epochs without a better `monitor` on the eval split after which training stops.
        monitor: The eval metric that chooses the best epoch, whose weights are kept.
        shuffle_buffer: Examples that are shuffled together, less what is left of whole batches.
        warm_start: Whether a training goes on from the latest blessed model of earlier days, from its weights and the
            optimizer's slots, where there is one. What the feature spec or the model's settings have changed is cold.
        warm_start_from: Which state that is: `latest`, the one that model ended with; `cold`, that of the last training
            that started cold, which the ones since have handed on: what the window does not reach back to is forgotten;
            `nothing`, for a training that starts cold and that later ones can go on from.
        when_warm: Which of these settings are other ones in a training that does go on from an earlier state, such as
            `{max_epochs: 1, learning_rate: 0.0002}`: what a night wants that adds a day to a model is not what a model
            wants that knows nothing yet.
        negative_sampling_rate: Share of the training split's impressions without a click that an epoch uses. What is
            evaluated and exported is corrected for it: p / (p + (1 - p) / rate).
        checkpoint_steps: Steps after which the training's state is written, so that it can be resumed, or up to 31
            more: 32 are taken at a time; 0 for never.
        checkpoint_minutes: Minutes after which it is; 0 for never. Each epoch's end is written too.
        workers_minutes: Minutes that the chief waits for the other workers to start, where `TF_CONFIG` names some.
        seed: Seed of initialization, shuffling, sampling and dropout.
    """

    batch_size: Positive = 1024
    max_epochs: Positive = 10
    max_steps: Positive | None = None
    learning_rate: Annotated[float, Field(gt=0)] = 0.001
    table_learning_rate: Annotated[float, Field(gt=0)] | None = None
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    decay_steps: Annotated[int, Field(ge=0)] = 0
    reduce_on_plateau: Annotated[float, Field(gt=0, lt=1)] | None = None
    average_from: Annotated[int, Field(ge=0)] | None = None
    optimizer: Literal["adam", "adamw", "adagrad", "sgd", "rmsprop", "nadam", "adamax", "lion"] = "adam"
    table_optimizer: Literal["adam", "adagrad", "rowwise_adagrad"] = "adam"
    patience: Positive = 2
    monitor: Literal["auc", "log_loss"] = "auc"
    shuffle_buffer: Positive = 100_000
    warm_start: bool = False
    warm_start_from: Literal["latest", "cold", "nothing"] = "latest"
    when_warm: WarmSettings = Field(default_factory=dict)
    negative_sampling_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    checkpoint_steps: Annotated[int, Field(ge=0)] = 0
    checkpoint_minutes: NonNegative = 10.0
    workers_minutes: Annotated[float, Field(gt=0)] = 10.0
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1

    def __post_init__(self) -> None:
        if self.reduce_on_plateau and (self.warmup_steps or self.decay_steps):
            raise ValueError("reduce_on_plateau does not go with warmup_steps or decay_steps: use one or the other")
        if self.warm_start_from != "latest" and not self.warm_start:
            raise ValueError(f"warm_start_from: {self.warm_start_from} means nothing without warm_start: true")
        if self.when_warm:
            if not self.warm_start:
                raise ValueError(
                    "when_warm means nothing without warm_start: true; for one training that starts cold, set "
                    "warm_start_from: nothing instead"
                )
            try:
                self.of_warm()
            except pydantic.ValidationError as error:  # one does not go with another
                told = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"with when_warm: {told}") from None

    def of_warm(self) -> TrainingConfig:
        """Returns the settings of a training that goes on from an earlier state."""
        return dataclasses.replace(self, **self.when_warm, when_warm={})
