"""A DeepFM's logit: that of `trainer/model.py` for inference, from fewer operations: each costs a request time.

All that is linear in the fields' vectors and the numbers is two products: the first layer of the deep tower; the linear
term and the sum of all vectors, which the FM term needs. All that is added up is one sum:
the last layer, the linear term, and the squares of Rendle's lemma, `0.5 * (|sum_i v_i|^2 - sum_i |v_i|^2)`, see
`trainer/layers.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from schemas.features import IDS, NUMBERS, IdField
from trainer.layers import pool_runs, present_ids

if TYPE_CHECKING:
    from trainer.model import DeepFM

Read = Callable[[Any], tf.Tensor]


def as_constant(variable: Any) -> tf.Tensor:
    """Returns a variable's value for a graph that never changes it."""
    with tf.init_scope():  # out of the function that is being traced
        value = tf.convert_to_tensor(variable.value).numpy()
    return tf.constant(value)


def as_variable(variable: Any) -> tf.Tensor:
    """Returns a variable's value as it will be then."""
    return tf.convert_to_tensor(variable.value)


def has_short_form(model: DeepFM) -> bool:
    """Returns whether a model's logit can be had by `short_logit`: whether its fields' vectors are all that it needs.

    Target attention needs the ids' own, the FM term over positions too, and bfloat16 rounds each term by itself.
    """
    is_pooled = any(field.max_length > 1 for field in model.spec.id_fields)
    has_hidden = model.deep_tower is None or len(model.deep_tower.layers) > 1
    return has_hidden and not (model.attention or model.is_mixed or (model.over_positions and is_pooled))


def short_logit(
    model: DeepFM,
    features: Mapping[str, tf.Tensor],
    read: Read = as_variable,
) -> tf.Tensor:
    """Returns the logit.

    Args:
        model: A model that `has_short_form`.
        features: `ids` int64 [batch, num_positions] and `numbers` float32 [batch, num_numbers], as Transform emits.
        read: Makes a tensor of a small variable; the embedding table is always read where it is.

    Returns:
        float32 [batch, 1].
    """
    inputs = _pooled_rows(model, features[IDS]) if model.spec.id_fields else []
    inputs += [features[NUMBERS]] if model.spec.numbers else []
    x = tf.concat(inputs, axis=1) if len(inputs) > 1 else inputs[0]  # [batch, num_fields * (1 + dim) + num_numbers]
    first, squares = _first_matrix(model, read)
    # The tower's product is one of its own. One impression's product with more than some 16,000 weights is shared among
    # threads, and to wake one takes ten times as long as the product.
    terms = {"hidden": tf.matmul(x, first.pop("hidden"))} if "hidden" in first else {}
    if first:
        products = tf.matmul(x, tf.concat([*first.values()], axis=1))
        widths = [matrix.shape[1] for matrix in first.values()]
        terms |= zip(first, tf.split(products, widths, axis=1), strict=True)
    parts, last = [], []
    bias = read(model.bias) if model.use_linear else None
    if model.deep_tower is not None:
        hidden = _hidden_layers(model.deep_tower, terms["hidden"], read)
        output = model.deep_tower.layers[-1]
        parts, last = [hidden], [read(output.kernel)]
        bias = read(output.bias) if output.use_bias else bias
    if "linear" in terms:
        parts.append(terms["linear"])
        last.append(tf.ones([1, 1]))
    if "total" in terms:
        parts.append(tf.square(terms["total"]))
        last.append(tf.fill([terms["total"].shape[1], 1], 0.5))
    # Of one column; a sum is faster than a product with it.
    weighted = tf.concat(parts, axis=1) * tf.transpose(tf.concat(last, axis=0))
    logit = tf.reduce_sum(weighted, axis=1, keepdims=True)
    if "total" in terms:
        logit -= tf.matmul(tf.square(x), 0.5 * squares)
    return logit if bias is None else logit + bias


def _pooled_rows(model: DeepFM, ids: tf.Tensor) -> list[tf.Tensor]:
    """Returns the fields' linear weights, summed, and factors, pooled: in all [batch, num_fields * (1 + dim)]."""
    fields = model.spec.id_fields
    width = 1 + model.embedding_dim
    runs, sizes = pool_runs(fields)
    is_id = present_ids(ids, fields)
    is_weight = np.eye(1, width, dtype=np.float32)  # of a row
    # The numbers of the rows are divided among the fields, not the rows, which are longer.
    has_hashes = any(field.num_hashes > 1 for field in fields)
    source = model.embedding_table(ids) if has_hashes else model.embedding_table.rows_of(ids)
    rows_of: Callable[[tf.Tensor], tf.Tensor] = tf.identity if has_hashes else model.embedding_table.gather
    divisors = _divisors(fields, is_id, is_weight)
    pooled = []
    for run, size, part in zip(runs, sizes, tf.split(source, sizes, axis=1), strict=True):
        field = run[0]
        if field.max_length == 1:
            pooled.append(tf.reshape(rows_of(part), [-1, size * width]))
        else:
            total = tf.reduce_sum(rows_of(part), axis=1)
            if field.name in divisors:
                total = tf.math.divide_no_nan(total, divisors[field.name])
            pooled.append(total)
    return pooled


def _divisors(fields: Sequence[IdField], is_id: tf.Tensor, is_weight: np.ndarray[Any, Any]) -> dict[str, tf.Tensor]:
    """Returns what the sum of each field is divided by that is not just a sum, float32 [batch, 1 + dim].

    That is 1 for the linear weights, which are summed; else the number of ids or its root, 0 where there are none.
    """
    of_names = [field for field in fields if field.max_length > 1 and field.pooling != "sum"]
    if not of_names:
        return {}
    of_ids = [field.name for field in fields for _ in range(field.max_length)]
    is_of = np.array([[owner == field.name for field in of_names] for owner in of_ids], np.float32)  # [num_ids, names]
    # One operation; a slice, a sum and a product for each field are more.
    counts = tf.matmul(tf.cast(is_id, tf.float32), np.kron(is_of, 1 - is_weight))  # 0 for the weights
    columns = [counts] if len(of_names) == 1 else tf.split(counts, len(of_names), axis=1)
    return {
        field.name: tf.maximum(tf.sqrt(count) if field.pooling == "sqrtn" else count, is_weight)
        for field, count in zip(of_names, columns, strict=True)
    }


def _first_matrix(model: DeepFM, read: Read) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Returns what the inputs are multiplied with, by what it gives, and what their squares are in the FM term.

    Returns:
        `hidden` [inputs, units], `linear` [inputs, 1] and `total` [inputs, dim], as far as the model has them, and
        [inputs, 1].
    """
    num_fields, num_numbers = len(model.spec.id_fields), len(model.spec.numbers)
    dim = model.embedding_dim
    first: dict[str, tf.Tensor] = {}

    def stack(of_row: Any, of_numbers: tf.Tensor) -> tf.Tensor:
        """Lays the rows for a field's vector out for each field, and those for the numbers below."""
        columns = of_row.shape[-1]
        of_fields = tf.reshape(tf.broadcast_to(of_row, [num_fields, 1 + dim, columns]), [-1, columns])
        return tf.concat([of_fields, of_numbers], axis=0)

    if model.deep_tower is not None:
        kernel = read(model.deep_tower.layers[0].kernel)
        units = kernel.shape[1]
        of_factors = tf.reshape(kernel[: num_fields * dim], [num_fields, dim, units])
        first["hidden"] = stack(tf.pad(of_factors, [[0, 0], [1, 0], [0, 0]]), kernel[num_fields * dim :])
    weight, factors = np.eye(1 + dim, dtype=np.float32)[:, :1], np.eye(1 + dim, dtype=np.float32)[:, 1:]
    if model.use_linear:
        numbers = read(model.number_weights.kernel) if num_numbers else tf.zeros([0, 1])
        first["linear"] = stack(weight, numbers)
    squares = tf.zeros([0, 1])
    if model.use_fm:
        has_factors = model.number_factors is not None
        numbers = read(model.number_factors) if has_factors else tf.zeros([num_numbers, dim])
        first["total"] = stack(factors, numbers)
        squares = stack(1 - weight, tf.reduce_sum(tf.square(numbers), axis=1, keepdims=True))
    return first, squares


def _hidden_layers(tower: keras.Sequential, product: tf.Tensor, read: Read) -> tf.Tensor:
    """Returns the outputs of the last hidden layer from the first one's product with its matrix.

    A bias is subtracted with the other sign, which is the same to the bit: what is added TensorFlow fuses with product
    and activation into one operation of oneDNN's, which takes twice as long for one impression, and rounds otherwise.
    """
    x = product - -read(tower.layers[0].bias)
    for layer in tower.layers[1:-1]:
        if isinstance(layer, keras.layers.Dense):
            x = tf.matmul(x, read(layer.kernel)) - -read(layer.bias)
        else:
            x = layer(x, training=False)
    return x
