from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np

SCRIPT = """
import json, sys
import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature
from trainer.config import ModelConfig, TrainingConfig
from trainer.finite import NonFiniteLossError
from trainer.model import model_fn
from trainer.train import train

generator = np.random.default_rng(0)
spec = FeatureSpec("s", (IdFeature("user", 30), IdSequence("history", 30, max_length=3), NumericFeature("x")))
features = {
    "ids": generator.integers(0, 31, size=[256, 4]),
    "numbers": generator.normal(size=[256, 1]).astype(np.float32),
}
label = (generator.random([256, 1]) < 0.4).astype(np.float32)
data = tf.data.Dataset.from_tensor_slices((features, label)).batch(64)
results = []
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    with strategy.scope():
        options = ModelConfig(embedding_dim=4, hidden_units=(8,), embedding_stddev=0.1, table_l2=0.01)
        model = model_fn(spec, options, seed=1)
        config = TrainingConfig(max_epochs=3, learning_rate=0.01, monitor="log_loss", patience=3)
        history = train(model, data, data, config, sys.argv[1]).history
    table = model.embedding_table.numpy()
    results.append([strategy.num_replicas_in_sync, history["loss"], history["val_log_loss"], table.tolist()])
    model.embedding_table.assign(tf.where(tf.range(len(table))[:, None] == features["ids"][70, 0], np.nan, table))
    try:
        with strategy.scope():
            train(model, data, data, config, sys.argv[1])
    except NonFiniteLossError as error:
        results[-1].append(str(error))
print(json.dumps(results))
"""


def _run(script, tmp_path):
    """Returns what a script prints at its end; in a process of its own, as devices are set once."""
    command = [sys.executable, "-c", script, str(tmp_path)]
    process = subprocess.run(command, check=False, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1])


def test_two_devices_train_as_one_does_at_the_same_global_batch(tmp_path):
    one, two = _run(SCRIPT, tmp_path)
    assert (one[0], two[0]) == (1, 2)
    assert one[1][-1] < one[1][0]
    np.testing.assert_allclose(two[1], one[1], rtol=1e-4)
    np.testing.assert_allclose(two[2], one[2], rtol=1e-4)
    np.testing.assert_allclose(two[3], one[3], rtol=1e-2, atol=1e-4)
    # What the last batch but two has is named, by whichever replica has it.
    for _, _, _, _, error in (one, two):
        assert re.search(r"the embeddings of 1 of \d+ ids of user are not finite", error), error


# What `fit` has on a machine with two GPUs, and the examples that it is given, as many as `draw` is told.
TWO_GPUS = """
import json, sys
import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from schemas.features import FeatureSpec, IdFeature, NumericFeature
from trainer import loop, train
from trainer.checkpoints import steps_taken
from trainer.config import ModelConfig, TrainingConfig

devices, mirrored = tf.config.list_logical_devices, tf.distribute.MirroredStrategy
tf.config.list_logical_devices = lambda kind=None: devices("CPU" if kind == "GPU" else kind)
tf.distribute.MirroredStrategy = lambda: mirrored(["CPU:0", "CPU:1"])
spec = FeatureSpec("s", (IdFeature("user", 30), NumericFeature("x")))

def draw(size):
    generator = np.random.default_rng(0)
    return tf.data.Dataset.from_tensors({
        "ids": generator.integers(0, 31, size=[size, 1]),
        "numbers": generator.normal(size=[size, 1]).astype(np.float32),
        "label": (generator.random(size) < 0.4).astype(np.float32),
    })
"""


# In a process that trains one model after the other, as the Tuner does.
TRIALS = """
chunks = draw(33)
results = []
for dim in (2, 4):
    options = ModelConfig(embedding_dim=dim, hidden_units=(8,), batch_norm=True)
    model, training = loop.fit(spec, options, TrainingConfig(batch_size=16, max_epochs=1), chunks, chunks, sys.argv[1])
    results.append([steps_taken(model), *training.history["val_log_loss"]])
print(json.dumps(results))
"""


def test_two_devices_train_one_model_after_the_other_and_no_device_gets_a_part_without_examples(tmp_path):
    for steps, log_loss in _run(TWO_GPUS + TRIALS, tmp_path):
        assert steps == 2  # the last example of 33 is for one device alone
        assert np.isfinite(log_loss)


# Of a training with two devices that is killed in the middle of an epoch, and of one that is not. The last batch has
# one example, so that a device has none of it.
RESUMED = """
chunks = draw(97)
config = TrainingConfig(batch_size=8, max_epochs=3, learning_rate=0.01, patience=3, checkpoint_steps=6)
options = ModelConfig(embedding_dim=4, hidden_units=(8,), embedding_l2=0.01)

def fit(name):
    folder = sys.argv[1] + name
    model, training = loop.fit(spec, options, config, chunks, chunks, folder + "/tb", folder + "/state")
    return [steps_taken(model), *training.history["val_log_loss"]]

results = [fit("whole")]
keep = train.KeepState.on_train_batch_end
def stop(self, batch, logs=None):
    keep(self, batch, logs)
    if steps_taken(self.model) == 20:
        raise KeyboardInterrupt
train.KeepState.on_train_batch_end = stop
try:
    fit("killed")
except KeyboardInterrupt:
    train.KeepState.on_train_batch_end = keep
results.append(fit("killed"))
print(json.dumps(results))
"""


def test_two_devices_go_on_in_the_middle_of_an_epoch_as_if_nothing_had_happened(tmp_path):
    (steps, *losses), resumed = _run(TWO_GPUS + RESUMED, tmp_path)
    assert steps == 3 * 13
    assert losses[2] < losses[0]
    assert resumed == [steps, *losses]
