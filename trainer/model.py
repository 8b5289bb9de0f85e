"""DeepFM: `logit = linear + FM + deep`, from one embedding table."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from schemas.features import IDS, NUMBERS, FeatureSpec
from trainer.config import ModelConfig
from trainer.layers import EmbeddingTable, fm_term, pool_fields


class DeepFM(keras.Model):
    """Guo et al., "DeepFM", IJCAI 2017, with sequences and numbers.

    For every position p of every id field, with its linear weight w_p and its factors v_p:

    - linear term: `bias + sum_p w_p + <w_numbers, numbers>`;
    - FM term: `sum_{p<q} <v_p, v_q>` over all positions, or over the fields' pooled factors (`fm_over`);
    - deep tower: an MLP over the fields' pooled factors and the numbers.

    A term that the config switches off is 0.

    Args:
        spec: The data set.
        config: The model's settings.
        seed: Seed of the initial weights and of dropout.
    """

    def __init__(self, spec: FeatureSpec, config: ModelConfig, seed: int) -> None:
        super().__init__(name="deepfm")
        self._fields = spec.id_fields
        self._num_positions = spec.num_positions
        self._num_numbers = len(spec.numbers)
        self._fm_over = config.fm_over
        self._embedding_l2 = config.embedding_l2
        self.has_unseen_rows = bool(self._fields and config.id_dropout)
        if self._fields:
            self.embedding_table = EmbeddingTable(
                self._fields,
                spec.num_table_rows,
                config.embedding_dim,
                config.embedding_stddev,
                seed,
                config.id_dropout,
            )
        if config.use_linear:
            self.bias = self.add_weight(name="bias", shape=(1,), initializer="zeros")
            self.number_weights = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="numbers")
        self._use_linear, self._use_fm = config.use_linear, config.use_fm
        self.deep_tower = _make_tower(config, seed) if config.use_deep else None

    def call(self, features: Mapping[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Returns the logit of the click-through rate.

        Args:
            features: `ids` int64 [batch, num_positions] and `numbers` float32 [batch, num_numbers], as Transform emits.
            training: Whether dropout is on.

        Returns:
            float32 [batch, 1].
        """
        linear, fm, deep = self.terms(features, training)
        return linear + fm + deep

    def terms(
        self, features: Mapping[str, tf.Tensor], training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the linear term, the FM term and the deep tower's output, each float32 [batch, 1]; see `call`."""
        batch_size = tf.shape(next(iter(features.values())))[0]
        linear = fm = deep = tf.zeros([batch_size, 1], self.compute_dtype)
        if self._use_linear:
            linear += self.bias.value
        tower_inputs = []
        if self._fields:
            ids = features[IDS]
            rows = self.embedding_table(ids, training=training)  # [batch, num_positions, 1 + dim]
            if training and self._embedding_l2:
                self.add_loss(self._embedding_l2 * tf.reduce_sum(tf.square(rows)) / tf.cast(batch_size, rows.dtype))
            weights, factors = tf.split(rows, [1, rows.shape[2] - 1], axis=2)  # [batch, num_positions, 1 and dim]
            pooled = pool_fields(factors, ids, self._fields)  # [batch, num_fields, dim]
            if self._use_linear:
                linear += tf.reduce_sum(weights, axis=1)
            if self._use_fm:
                fm = fm_term(factors if self._fm_over == "positions" else pooled)
            tower_inputs.append(tf.reshape(pooled, [batch_size, pooled.shape[1] * pooled.shape[2]]))
        if self._num_numbers:
            if self._use_linear:
                linear += self.number_weights(features[NUMBERS])
            tower_inputs.append(features[NUMBERS])
        if self.deep_tower:
            deep = self.deep_tower(tf.concat(tower_inputs, axis=1), training=training)
        return linear, fm, deep

    @property
    def tables(self) -> list[keras.Variable]:
        """The variables that are only gathered from: the embedding table, if there are id fields."""
        return [self.embedding_table.table] if self._fields else []

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
    for index, units in enumerate(config.hidden_units):
        initializer = keras.initializers.GlorotUniform(seed=seed + index)
        layers.append(keras.layers.Dense(units, kernel_initializer=initializer, name=f"hidden_{index}"))
        if config.batch_norm:
            layers.append(keras.layers.BatchNormalization(name=f"batch_norm_{index}"))
        layers.append(keras.layers.Activation(config.activation))
        if config.dropout:
            layers.append(keras.layers.Dropout(config.dropout, seed=seed + index))
    initializer = keras.initializers.GlorotUniform(seed=seed)
    layers.append(keras.layers.Dense(1, use_bias=not config.use_linear, kernel_initializer=initializer, name="output"))
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
