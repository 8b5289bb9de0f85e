"""DeepCTR's DeepFM through `fit`. `legacy_adam`: with tf_keras's legacy Adam, which scatters gradients."""

from __future__ import annotations

import tensorflow as tf
from deepctr import feature_column
from deepctr.models import DeepFM

from benchmarks.quality_peers import common
from benchmarks.speed_peers import clock


def prepare(arrays: common.Arrays, variant: str) -> clock.Fit:
    """Makes the model."""
    tf.config.threading.set_intra_op_parallelism_threads(clock.THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(clock.THREADS)
    columns = common.feature_columns(arrays, feature_column)
    # Without its penalty, which is a pass over every table in every step.
    model = DeepFM(columns, columns, dnn_hidden_units=common.HIDDEN_UNITS, l2_reg_linear=0, l2_reg_embedding=0)
    adam = tf.keras.optimizers.legacy.Adam if variant == "legacy_adam" else tf.keras.optimizers.Adam
    model.compile(adam(common.LEARNING_RATE), "binary_crossentropy")

    def fit(rows: dict[str, common.Array], batch_size: int) -> None:
        model.fit(common.inputs(arrays, rows), rows["labels"], batch_size=batch_size, epochs=1, verbose=0)

    return fit


if __name__ == "__main__":
    clock.run(prepare)
