"""DeepFM: `logit = linear + FM + deep`, from one embedding table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from schemas.features import IDS, NUMBERS, FeatureSpec
from trainer.config import ModelConfig
from trainer.finite import NonFiniteLossError, find_offender
from trainer.layers import (
    EmbeddingTable,
    Interactions,
    TargetAttention,
    fm_term,
    interact,
    interact_read,
    present_ids,
)
from trainer.logit import has_short_form, short_logit
from trainer.rows import Plan, ReadRows, RowTable

# What `DeepFM.plan_batch` adds to a batch's features.
_ROWS, _POSITION = "rows", "position"


class DeepFM(keras.Model):
    """Guo et al., "DeepFM", IJCAI 2017, with sequences and numbers.

    For every id p of every id field, with its linear weight w_p and its factors v_p:

    - linear term: `bias + sum_p w_p + <w_numbers, numbers>`;
    - FM term: `sum_{p<q} <v_p, v_q>` over all ids, or over the fields' pooled factors (`fm_over`); with `fm_numbers`
      also over a vector `x_j u_j` for each number x_j;
    - deep tower: an MLP over the fields' pooled factors and the numbers.

    A term that the config switches off is 0.

    Args:
        spec: The data set.
        config: The model's settings.
        seed: Seed of the initial weights and of dropout.

    Attributes:
        spec: The data set.
        steps_per_call: How many steps `fit` takes, on one device, between two calls of its callbacks.
    """

    train_function: Any
    steps_per_call = 1

    def __init__(self, spec: FeatureSpec, config: ModelConfig, seed: int) -> None:
        super().__init__(name="deepfm")
        self.spec = spec
        self._fields = spec.id_fields
        self._inputs = [IDS] * bool(spec.id_fields) + [NUMBERS] * bool(spec.numbers)
        self.offender = ""
        self._num_positions = spec.num_positions
        self._num_numbers = len(spec.numbers)
        self.over_positions = config.fm_over == "positions"
        self.embedding_dim = config.embedding_dim
        self.settings = config
        self.is_mixed = config.mixed_precision
        self._embedding_l2 = config.embedding_l2
        self.table_l2 = config.table_l2
        id_dropout = config.id_dropout_by_name([field.name for field in self._fields])
        self.has_unseen_rows = any(id_dropout)
        if self._fields:
            self.embedding_table = EmbeddingTable(
                self._fields,
                spec.num_table_rows,
                config.embedding_dim,
                config.embedding_stddev,
                seed,
                id_dropout,
            )
        if config.use_linear:
            self.bias = self.add_weight(name="bias", shape=(1,), initializer="zeros")
            self.number_weights = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="numbers")
        self.number_factors = None
        if config.use_fm and config.fm_numbers and self._num_numbers:
            self.number_factors = self.add_weight(
                name="number_factors",
                shape=(self._num_numbers, config.embedding_dim),
                initializer=keras.initializers.RandomNormal(stddev=config.embedding_stddev, seed=seed),
            )
        self.use_linear, self.use_fm = config.use_linear, config.use_fm
        self.deep_tower = _make_tower(config, seed) if config.use_deep else None
        self._training_tower = self.deep_tower
        if config.use_deep and config.xla:
            self._training_tower = tf.function(self.deep_tower, jit_compile=True, reduce_retracing=True)
        self.attention = {
            field.name: TargetAttention(f"attention_{field.name}", config.attention_units, seed)
            for field in self._fields
            if config.use_deep and field.pooling == "target_attention"
        }
        # Of the rows that a step reads; else it needs each position's.
        are_summed = not self.over_positions or all(field.num_hashes == 1 for field in self._fields)
        self._needs_sums_only = are_summed and not self.attention and not config.embedding_l2

    def call(
        self, features: Mapping[str, tf.Tensor], training: bool = False, read: ReadRows | None = None
    ) -> tf.Tensor:
        """Returns the logit of the click-through rate.

        Args:
            features: `ids` int64 [batch, num_positions] and `numbers` float32 [batch, num_numbers], as Transform emits.
            training: Whether dropout is on.
            read: What has been read of the embedding table; None where it is to be read.

        Returns:
            float32 [batch, 1].
        """
        if self.built and not training and has_short_form(self):
            return short_logit(self, features)
        linear, fm, deep = self.terms(features, training, read)
        return linear + fm + deep

    def terms(
        self, features: Mapping[str, tf.Tensor], training: bool = False, read: ReadRows | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the linear term, the FM term and the deep tower's output, each float32 [batch, 1]; see `call`."""
        batch_size = tf.shape(next(iter(features.values())))[0]
        linear = fm = deep = total = tf.zeros([batch_size, 1])
        tower_input = numbers = features[NUMBERS] if self._num_numbers else tf.zeros([batch_size, 0])
        if self._fields:
            sums = self._interact(features[IDS], numbers, training, read)
            linear, total, fm = sums.linear, sums.total, fm_term(sums.total, sums.squares)
            tower_input = sums.tower
        if self._num_numbers:
            if self.use_linear:
                linear += self.number_weights(numbers)
            if self.number_factors is not None:
                # The pairs of numbers, and those of a number and an id.
                number_total = tf.matmul(numbers, self.number_factors.value)  # [batch, dim]
                norms = tf.reduce_sum(tf.square(self.number_factors.value), axis=1, keepdims=True)  # [num_numbers, 1]
                fm += fm_term(number_total, tf.matmul(tf.square(numbers), norms))
                fm += tf.reduce_sum(total * number_total, axis=1, keepdims=True)
        tower = self._training_tower if training else self.deep_tower
        if tower is not None:
            deep = tf.cast(tower(tower_input, training=training), tf.float32)
        zero = tf.zeros([batch_size, 1])
        return linear + self.bias.value if self.use_linear else zero, fm if self.use_fm else zero, deep

    def _interact(self, ids: tf.Tensor, numbers: tf.Tensor, training: bool, read: ReadRows | None) -> Interactions:
        if read is not None and self._needs_sums_only and self.embedding_table.kernels:
            return interact_read(self.embedding_table.kernels, read, numbers, self._fields, self.over_positions)
        rows = self.embedding_table(ids, training=training, read=read)  # [batch, num_ids, 1 + dim]
        if training and self._embedding_l2:
            size = tf.maximum(tf.shape(ids)[0], 1)  # of several devices one may get no examples of a last batch
            self.add_loss(self._embedding_l2 * tf.reduce_sum(tf.square(rows)) / tf.cast(size, rows.dtype))
        is_id = present_ids(ids, self._fields)
        sums = interact(rows, is_id, numbers, self._fields, self.over_positions)
        return sums._replace(tower=self._attend(rows, is_id, sums.tower)) if self.attention else sums

    def _plan(self, features: Mapping[str, tf.Tensor]) -> Plan:
        if _ROWS in features:
            return Plan(features[_ROWS], features[_POSITION])
        return self.embedding_table.plan(features[IDS], training=True)

    def plan_batch(self, features: Mapping[str, tf.Tensor], *rest: tf.Tensor) -> tuple[Any, ...]:
        """Finds out which rows a step will read of the table, beside the step before: for a `tf.data` pipeline.

        Args:
            features: A batch's.
            rest: Its label, and its weight.

        Returns:
            The batch, with what `train_step` needs among its features. What it needs is not of the batch's size, so
            that it cannot be divided among devices.
        """
        if not self._fields or self.has_unseen_rows:  # ids are dropped by a draw in the step
            return (dict(features), *rest)
        planned = self.embedding_table.plan(features[IDS])
        return ({**features, _ROWS: planned.rows, _POSITION: planned.position}, *rest)

    def make_train_function(self, force: bool = False) -> None:
        """Makes Keras's function of a step; on one device one that takes `steps_per_call` of them.

        To call TensorFlow from Python once for each step takes a sixth to a quarter of its time.
        """
        if self.distribute_strategy.num_replicas_in_sync > 1 or self.steps_per_execution > 1 or self.run_eagerly:
            super().make_train_function(force)
        elif self.train_function is None or force:
            take_steps = tf.function(self._take_steps, reduce_retracing=True)
            self.train_function = lambda iterator: self._call(take_steps, iterator)

    def _take_steps(self, iterator: Any) -> dict[str, Any]:
        def step(number: tf.Tensor) -> tuple[tf.Tensor]:
            self.train_step(iterator.get_next())
            return (number + 1,)

        tf.while_loop(lambda number: number < self.steps_per_call, step, [tf.constant(0)], parallel_iterations=1)
        return dict(self.get_metrics_result())

    def _call(self, take_steps: Callable[[Any], dict[str, Any]], iterator: Any) -> dict[str, Any]:
        """Calls it; where the data end after some steps, Keras learns of it at the next call."""
        before = int(self.optimizer.iterations)
        for table in self.tables:
            table.check_memory()
        try:
            return take_steps(iterator)
        except tf.errors.OutOfRangeError:
            if int(self.optimizer.iterations) == before:
                raise
            return dict(self.get_metrics_result())

    def train_step(self, data: Any) -> dict[str, Any]:
        """Keras's step, but that each different row of the batch is read once, with its slots, and written once.

        A loss that is NaN or infinite is a `NonFiniteLossError` before any weight changes.
        """
        # After the last batch a step is begun that finds no more data. Nothing of it is done: dropout draws no number.
        with tf.control_dependencies(tf.nest.flatten(data)):
            return self._step(data)

    def _step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        variables = self.trainable_variables
        sources = {variable.path: variable.value for variable in variables}
        read = None
        with tf.GradientTape() as tape:
            if self._fields:
                read = self.embedding_table.read(self._plan(x))
                tape.watch(read.values)
                sources[self.embedding_table.table.path] = read.values
            y_pred = self(x, training=True, read=read)
            loss = self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True)
        gradients = tape.gradient(loss, sources)
        if read is not None:
            of_rows = tf.convert_to_tensor(gradients[self.embedding_table.table.path])  # summed: [num_read, 1 + dim]
            gradients[self.embedding_table.table.path] = tf.IndexedSlices(of_rows, read.rows)
        with tf.control_dependencies([self._check(loss, x, y, sample_weight)]):
            self.optimizer.apply([gradients[variable.path] for variable in variables], variables, read)
        for metric in self.metrics:
            if metric.name == "loss":  # of the replica's examples; `loss` is the replica's share of the mean
                of_replica = loss * tf.distribute.get_strategy().num_replicas_in_sync
                size = total = tf.cast(tf.shape(y)[0], tf.float32)
                if sample_weight is not None:  # a mean by weight, as what is measured after the epoch
                    total = tf.reduce_sum(sample_weight)
                    penalties = sum(self.losses)  # of the weights, not of the examples
                    of_replica = tf.math.divide_no_nan((of_replica - penalties) * size, total) + penalties
                metric.update_state(of_replica, sample_weight=total)
        return dict(self.compute_metrics(x, y, y_pred, sample_weight))

    def _check(self, loss: tf.Tensor, x: Mapping[str, tf.Tensor], y: tf.Tensor, weight: tf.Tensor | None) -> tf.Tensor:
        """Returns a tensor that is there only where a loss is finite."""

        def stop() -> tf.Tensor:
            rows = [self.embedding_table.gather(self.embedding_table.rows_of(x[IDS]))] if self._fields else []
            values = rows + [x[name] for name in self._inputs] + [y] + ([] if weight is None else [weight])
            return tf.ensure_shape(tf.numpy_function(self._find_offender, values, tf.float32), [])

        return tf.cond(tf.math.is_finite(loss), lambda: tf.constant(0.0), stop)

    def _find_offender(self, *values: Any) -> Any:
        """Raises an error that names the feature that a batch's loss is not finite for."""
        names = [*["rows"] * bool(self._fields), *self._inputs, "label", "weight"]
        batch = dict(zip(names, values, strict=False))
        self.offender = find_offender(self.spec, batch, batch.pop("rows", None))
        raise NonFiniteLossError(self.offender)

    def _attend(self, rows: tf.Tensor, is_id: tf.Tensor, tower: tf.Tensor) -> tf.Tensor:
        """Puts the sequences' vectors with `target_attention` in the place of their means; see `Interactions.tower`."""
        lengths = [field.max_length for field in self._fields]
        factors = tf.split(rows[:, :, 1:], lengths, axis=1)
        masks = tf.split(is_id, lengths, axis=1)
        *vectors, numbers = tf.split(tower, [self.embedding_dim] * len(lengths) + [self._num_numbers], axis=1)
        for index, field in enumerate(self._fields):
            if field.name in self.attention:
                vectors[index] = self.attention[field.name](factors[index], factors[field.target], masks[index])
        return tf.concat([*vectors, numbers], axis=1)

    @property
    def logit_bias(self) -> keras.Variable | None:
        """What is added to every logit, [1]; None where there is only an FM term."""
        if self.use_linear:
            return self.bias
        return self.deep_tower.layers[-1].bias if self.deep_tower is not None else None

    @property
    def tables(self) -> list[RowTable]:
        """What is only gathered from: the embedding table, if there are id fields."""
        return [self.embedding_table] if self._fields else []

    def zero_batch(self) -> dict[str, tf.Tensor]:
        """Returns a batch of one impression without any value, in the form of `call`'s features."""
        batch = {}
        if self._fields:
            batch[IDS] = tf.zeros([1, self._num_positions], tf.int64)
        if self._num_numbers:
            batch[NUMBERS] = tf.zeros([1, self._num_numbers], tf.float32)
        return batch


def _make_tower(config: ModelConfig, seed: int) -> keras.Sequential:
    """Returns the MLP [batch, any] -> [batch, 1]; its last layer has a bias where no linear term has one."""
    layers: list[keras.layers.Layer] = []
    dtype = "mixed_bfloat16" if config.mixed_precision else "float32"
    # Keras's L2(x) is x * |W|^2.
    decay = keras.regularizers.L2(config.tower_l2 / 2) if config.tower_l2 else None
    for index, units in enumerate(config.hidden_units):
        initializer = keras.initializers.GlorotUniform(seed=seed + index)
        layers.append(
            keras.layers.Dense(
                units, kernel_initializer=initializer, kernel_regularizer=decay, dtype=dtype, name=f"hidden_{index}"
            )
        )
        if config.batch_norm:
            layers.append(keras.layers.BatchNormalization(dtype=dtype, name=f"batch_norm_{index}"))
        layers.append(keras.layers.Activation(config.activation, dtype=dtype))
        if config.dropout:
            layers.append(keras.layers.Dropout(config.dropout, seed=seed + index, dtype=dtype))
    initializer = keras.initializers.GlorotUniform(seed=seed)
    layers.append(
        keras.layers.Dense(
            1,
            use_bias=not config.use_linear,
            kernel_initializer=initializer,
            kernel_regularizer=decay,
            dtype=dtype,
            name="output",
        )
    )
    return keras.Sequential(layers, name="deep_tower")


def model_fn(spec: FeatureSpec, config: ModelConfig, seed: int = 1) -> DeepFM:
    """Returns an untrained DeepFM for a data set, with its weights made.

    Args:
        spec: The data set.
        config: The model's settings.
        seed: Seed of the initial weights and of dropout.
    """
    model = DeepFM(spec, config, seed)
    model(model.zero_batch())
    return model
