"""Two processes on loopback that train together, through `run_fn` and `python -m trainer.worker`'s entry."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import signal
import socket

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata

from schemas import training_log
from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature
from schemas.tfmd import make_schema
from trainer.checkpoints import loss_metric
from trainer.config import ModelConfig, TrainingConfig
from trainer.input import Share, ordered_batches, read_chunks, shuffled_batches
from trainer.model import model_fn
from trainer.train import ShareEpoch, _draw_otherwise, compile_model
from trainer.workers import ALONE, Workers

SPEC = FeatureSpec("pair", (IdFeature("item", 40), IdSequence("history", 40, max_length=3), NumericFeature("x")))
PARSING = {
    "ids": tf.io.FixedLenFeature([4], tf.int64),
    "numbers": tf.io.FixedLenFeature([1], tf.float32),
    "label": tf.io.FixedLenFeature([], tf.float32),
}
NUM_EXAMPLES = {"train": 299, "eval": 101}  # of batches of 32, the last one has 11, and is filled up
SECONDS = 600  # for a machine with much else to do; it takes a few


def _pack(inputs):
    """A transformation of the test's own: the trainer does not know the project's."""
    label = tf.reshape(tf.cast(inputs["label"], tf.float32), [-1])
    ids = tf.tile(tf.reshape(inputs["item"], [-1, 1]), [1, 4])
    return {"ids": ids + 1, "numbers": tf.reshape(inputs["x"], [-1, 1]), "label": label}


def _write(file, examples):
    with tf.io.TFRecordWriter(str(file), tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
        for ids, x, label in examples:
            feature = {
                "ids": tf.train.Feature(int64_list=tf.train.Int64List(value=ids)),
                "numbers": tf.train.Feature(float_list=tf.train.FloatList(value=[x])),
                "label": tf.train.Feature(float_list=tf.train.FloatList(value=[label])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a transformation, and transformed examples in three files a split."""
    home = tmp_path_factory.mktemp("workers")
    with tft_beam.Context(temp_dir=str(home / "temporary")):
        row = {"item": 1, "history": [1], "x": 0.5, "label": 1}
        raw = ([row], dataset_metadata.DatasetMetadata(make_schema(SPEC)))
        _, transform_fn = raw | tft_beam.AnalyzeAndTransformDataset(_pack)
        _ = transform_fn | tft_beam.WriteTransformFn(str(home / "graph"))
    generator = np.random.default_rng(0)
    for split, number in NUM_EXAMPLES.items():
        ids = generator.integers(0, 41, size=[number, 4])
        x = generator.normal(size=number).astype(np.float32)
        label = np.float32(generator.random(number) < 1 / (1 + np.exp(-x - (ids[:, 0] - 20) / 10)))
        for part in range(3):
            own = slice(part, None, 3)
            _write(home / f"{split}-{part}.gz", zip(ids[own].tolist(), x[own], label[own], strict=True))
    return home


@pytest.fixture(scope="module")
def processes():
    """Starts processes that have imported what they need; none of them outlives the tests."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.trainer.worker_process"])
    return context


def _arguments(home, folder, **training):
    settings = {"batch_size": 32, "max_epochs": 3, "patience": 3, "learning_rate": 0.01, "monitor": "log_loss"}
    model = {"embedding_dim": 4, "hidden_units": [8], "embedding_stddev": 0.1, "table_l2": 0.01, "tower_l2": 0.01}
    return {
        "train_files": [str(home / "train-*")],
        "eval_files": [str(home / "eval-*")],
        "transform_graph_path": str(home / "graph"),
        "serving_model_dir": str(folder / "model"),
        "model_run_dir": str(folder / "run"),
        "custom_config": {
            "features": "tests.trainer.test_workers:SPEC",
            "model": json.dumps(model | training.pop("model", {})),
            "training": json.dumps(settings | {"warm_start": True} | training),
            "checkpoints": str(folder / "checkpoints"),
        },
    }


def _tf_configs():
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for each in sockets:
            each.bind(("localhost", 0))
        addresses = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}) for index in range(2)
    ]


def _train(processes, folder, arguments, tf_configs=(None,), ends=(), **options):
    """Trains; returns the processes' exit codes, None for one that has not ended, and their outputs.

    Args:
        processes: The fixture.
        folder: Where the outputs go.
        arguments: The chief's.
        tf_configs: Of all processes; the chief's is the first.
        ends: Of all processes the batches after which they get a signal, and the signal; () for none.
        options: Of `worker_process.train`, by the process's rank.
    """
    from tests.trainer import worker_process

    folder.mkdir(exist_ok=True)
    logs = [folder / f"worker-{rank}.log" for rank in range(len(tf_configs))]
    started = []
    for rank, (log, tf_config) in enumerate(zip(logs, tf_configs, strict=True)):
        kill_after, kill_signal = ends[rank] if ends else (0, signal.SIGKILL)
        settings = {"kill_after": kill_after, "kill_signal": kill_signal} | options.get(f"worker_{rank}", {})
        of_process = (log, tf_config, None if rank else arguments)
        started.append(processes.Process(target=worker_process.train, args=of_process, kwargs=settings, daemon=True))
    try:
        for process in started:
            process.start()
        for process, (_, kill_signal) in zip(started, ends or [(0, 0)] * len(started), strict=True):
            process.join(0 if kill_signal == signal.SIGSTOP else SECONDS)
        codes = [process.exitcode for process in started]
    finally:
        for process in started:
            process.kill()
            process.join()
    return codes, [log.read_text(encoding="utf-8") for log in logs]


def _outcome(folder):
    """Returns what the training has left: the figures of its epochs, and all weights and slots."""
    log = json.loads((folder / training_log.FILE).read_text(encoding="utf-8"))
    with np.load(folder / "training_state" / "variables.npz") as variables:
        return log, {name: variables[name] for name in variables.files}


def _digests(folder, rank):
    return (folder / f"worker-{rank}.digests").read_text(encoding="utf-8").splitlines()


def test_days_may_all_go_on_from_the_last_training_that_started_cold(processes, home, tmp_path):
    states, trainings, before = [], [], None
    for day, start in enumerate(["cold", "cold", "cold", "latest", "nothing"]):
        folder = tmp_path / str(day)
        arguments = _arguments(home, folder, max_epochs=1, warm_start_from=start, when_warm={"max_epochs": 2})
        codes, outputs = _train(processes, folder, arguments | ({"base_model": before} if before else {}))
        assert codes == [0], outputs
        log, state = _outcome(folder)
        trainings.append(log)
        states.append(state)
        before = arguments["serving_model_dir"]
    bias = [state["deepfm/bias"] for state in states]
    assert bias[0] == bias[1] == bias[2]
    assert bias[3] not in bias[:3]
    assert bias[4] == bias[0]  # the same training, cold again
    assert [len(training["epochs"]) for training in trainings] == [1, 2, 2, 2, 1]
    assert trainings[0]["start"] == "cold start: there is no earlier blessed model"
    for day in (1, 2, 3):
        told = ", which has the state of an earlier cold start" if day == 3 else ""
        assert trainings[day]["start"] == f"warm start from {tmp_path / str(day - 1)}{told}"
    assert trainings[4]["start"] == "cold start: training.warm_start_from is nothing"


def test_workers_of_which_one_does_not_see_the_earlier_state_do_not_train(processes, home, tmp_path):
    before = _arguments(home, tmp_path / "before", max_epochs=1)
    codes, logs = _train(processes, tmp_path / "before", before)
    assert codes == [0], logs
    warm = _arguments(home, tmp_path / "warm", when_warm={"batch_size": 64})
    warm["base_model"] = before["serving_model_dir"]
    codes, logs = _train(processes, tmp_path / "warm", warm, _tf_configs(), worker_1={"is_blind": True})
    assert codes == [1, 1], logs[0][-3000:] + logs[1][-3000:]
    for log in logs:
        assert f"do not all go on from where the chief does, warm start from {tmp_path / 'before'}" in log
    assert "worker 1 goes on from cold start: the earlier blessed model was trained without" in logs[1]


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("rate", [1.0, 0.5], ids=["all", "a sample of the negatives"])
def test_the_workers_batches_together_are_those_of_one_worker(home, rate, number):
    files = [str(home / "train-*")]
    alone = shuffled_batches(read_chunks(files, PARSING, num_files=4), 32, 100, 7, rate)
    shares = [
        shuffled_batches(read_chunks(files, PARSING, num_files=4), 32, 100, 7, rate, None, Share(rank, number))
        for rank in range(number)
    ]
    for _ in range(2):  # epochs
        for (features, label), *of_workers in zip(alone, *shares, strict=True):
            own = -(-len(label) // number)
            found = []
            for part, part_label, weight in of_workers:
                assert len(part_label) == own  # the same for all workers
                kept = weight.numpy() > 0
                np.testing.assert_allclose(weight.numpy()[kept], own * number / len(label), rtol=1e-6)
                found.append(_rows(part, part_label)[kept])
            np.testing.assert_array_equal(_sorted(np.concatenate(found)), _sorted(_rows(features, label)))


def _rows(features, label):
    return np.concatenate([features["numbers"], features["ids"], label], axis=1)


def _sorted(rows):
    return rows[np.lexsort(rows.T)]


def test_the_workers_shares_of_the_eval_split_are_all_of_it(home):
    files = [str(home / "eval-*")]
    of_workers = [list(ordered_batches(read_chunks(files, PARSING), 32, Share(rank, 5))) for rank in range(5)]
    assert [len(batches) for batches in of_workers] == [1, 1, 1, 1, 0]
    found = [float(x) for batches in of_workers for features, _ in batches for x in features["numbers"][:, 0]]
    alone = ordered_batches(read_chunks(files, PARSING), 32)
    assert found == [float(x) for features, _ in alone for x in features["numbers"][:, 0]]


def test_a_process_alone_exchanges_nothing():
    values = tf.constant([1.0, 2.0])
    assert ALONE.mean("x", values) is values
    assert ALONE.gather("x", values) is values
    assert ALONE.gradients([values]) == [values]
    assert ALONE.text("x") == "x"
    assert ALONE.is_chief


class _OneMore(Workers):
    """Workers whose mean is one more than what this one has."""

    def mean(self, name, values):
        return values + 1


def _model():
    config = ModelConfig(embedding_dim=2, hidden_units=(4,), dropout=0.5, batch_norm=True)
    return model_fn(SPEC, config, seed=7)


def test_the_loss_and_the_running_means_are_exchanged_at_an_epochs_end():
    model, logs = _model(), {"loss": 2.0}
    compile_model(model, TrainingConfig())
    loss_metric(model).update_state([2.0], sample_weight=[2.0])
    before = {variable.path: np.array(variable) for variable in model.non_trainable_variables}
    exchange = ShareEpoch(_OneMore())
    exchange.set_model(model)
    exchange.on_epoch_end(0, logs)
    assert logs == {"loss": pytest.approx((4 + 1) / (2 + 1))}  # by weight
    moved = {
        variable.path.rpartition("/")[2]: variable - before[variable.path] for variable in model.non_trainable_variables
    }
    assert sorted(moved) == ["moving_mean", "moving_variance", "seed_generator_state"]
    for name, difference in moved.items():
        np.testing.assert_array_equal(difference, np.full(difference.shape, name != "seed_generator_state"))


def test_the_workers_draw_different_numbers_for_dropout():
    batch = _model().zero_batch()
    logits = []
    for rank in (0, 0, 1):
        model = _model()
        for weight in model.trainable_variables:
            weight.assign(tf.ones_like(weight))
        _draw_otherwise(model, rank)
        many = {name: tf.repeat(values, 64, axis=0) + 1 for name, values in batch.items()}
        logits.append(model(many, training=True).numpy())
    np.testing.assert_array_equal(logits[0], logits[1])
    assert (logits[0] != logits[2]).any()


def test_two_workers_train_as_one_does_at_the_same_global_batch(home, processes, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    codes, logs = _train(processes, alone, _arguments(home, alone))
    assert codes == [0], logs[0][-3000:]
    codes, logs = _train(processes, together, _arguments(home, together), _tf_configs(), worker_0={"exports": True})
    assert codes == [0, 0], logs[0][-3000:] + logs[1][-3000:]
    (log, values), (log_alone, values_alone) = _outcome(together), _outcome(alone)
    assert len(log["epochs"]) == 3
    assert log["epochs"][-1]["loss"] < log["epochs"][0]["loss"]
    for epoch, epoch_alone in zip(log["epochs"], log_alone["epochs"], strict=True):
        assert epoch["loss"] == pytest.approx(epoch_alone["loss"], rel=1e-4)  # the last batch is filled up
        assert epoch["val_log_loss"] == pytest.approx(epoch_alone["val_log_loss"], rel=1e-6)
        assert epoch["val_auc"] == pytest.approx(epoch_alone["val_auc"], abs=1e-3)
    assert values.keys() == values_alone.keys()
    for name, value in values.items():
        np.testing.assert_allclose(value, values_alone[name], rtol=1e-4, atol=1e-6, err_msg=name)
    # Both have the same weights and slots, to the bit, and only the chief has written anything else.
    assert _digests(together, 0) == _digests(together, 1)
    assert sum("epoch 1/3" in log for log in logs) == 1
    assert sorted(entry.name for entry in together.iterdir()) == sorted(
        [entry.name for entry in alone.iterdir()] + ["model", "worker-1.digests", "worker-1.log"]
    )


DROPOUT = {"checkpoint_steps": 4, "model": {"dropout": 0.2}}


@pytest.fixture(scope="module")
def undisturbed(home, processes, tmp_path_factory):
    """What a training of two workers leaves that none of them is killed in."""
    folder = tmp_path_factory.mktemp("undisturbed")
    codes, logs = _train(processes, folder, _arguments(home, folder, **DROPOUT), _tf_configs())
    assert codes == [0, 0], logs[0][-3000:] + logs[1][-3000:]
    return _outcome(folder)


@pytest.mark.parametrize(("killed", "batches"), [(1, 14), (0, 25)], ids=["a worker", "the chief"])
def test_a_killed_workers_training_is_gone_on_with_and_ends_as_one_that_was_not(
    killed, batches, home, processes, undisturbed, tmp_path
):
    """Ten batches an epoch; a checkpoint after every fourth of them."""
    arguments, tf_configs = _arguments(home, tmp_path, **DROPOUT), _tf_configs()
    ends = [(batches * (rank == killed), signal.SIGKILL) for rank in range(2)]
    codes, logs = _train(processes, tmp_path, arguments, tf_configs, ends)
    assert codes[killed] == -signal.SIGKILL
    assert codes[1 - killed] == 1, logs[1 - killed][-3000:]
    address = json.loads(tf_configs[0])["cluster"]["worker"][killed]
    assert f"worker {killed} of 2 ({address}) was lost" in logs[1 - killed]

    epoch, batch = divmod(batches, 10)
    begin = f"{epoch} epochs and {batch // 4 * 4} batches"
    if killed:
        codes, logs = _train(processes, tmp_path, arguments, tf_configs, worker_1={"is_blind": True})
        assert codes == [1, 1], logs[0][-3000:] + logs[1][-3000:]
        for log in logs:
            assert f"do not all go on from where the chief does, {begin}" in log
        assert "worker 1 goes on from 0 epochs and 0 batches" in logs[1]

    codes, logs = _train(processes, tmp_path, arguments, tf_configs)
    assert codes == [0, 0], logs[0][-3000:] + logs[1][-3000:]
    for log in logs:
        assert f"resumed after {begin}" in log
    (log, values), (log_undisturbed, values_undisturbed) = _outcome(tmp_path), undisturbed
    for name in ("val_log_loss", "val_auc"):
        assert [epoch[name] for epoch in log["epochs"]] == [epoch[name] for epoch in log_undisturbed["epochs"]]
    for name, value in values.items():
        np.testing.assert_array_equal(value, values_undisturbed[name], err_msg=name)


def test_a_worker_that_answers_no_more_is_named(home, processes, tmp_path):
    tf_configs = _tf_configs()
    ends = [(0, signal.SIGKILL), (14, signal.SIGSTOP)]
    codes, logs = _train(processes, tmp_path, _arguments(home, tmp_path), tf_configs, ends, worker_0={"patience": 1.0})
    assert codes == [1, None]
    address = json.loads(tf_configs[0])["cluster"]["worker"][1]
    assert f"worker 1 of 2 ({address}) was lost" in logs[0]


def test_a_batch_that_the_workers_cannot_divide_is_refused(home, processes, tmp_path):
    codes, logs = _train(processes, tmp_path / "x", _arguments(home, tmp_path / "x", batch_size=33), _tf_configs())
    assert codes == [1, 1]
    for log in logs:
        assert "batch_size is 33, which 2 workers cannot divide: give training, or its when_warm" in log


def test_a_worker_that_is_not_there_in_time_is_named(home, processes, tmp_path):
    (tf_config, other) = _tf_configs()
    address = json.loads(other)["cluster"]["worker"][1]
    arguments = _arguments(home, tmp_path / "x", workers_minutes=0.02)
    codes, logs = _train(processes, tmp_path / "x", arguments, [tf_config])
    assert codes == [1]
    assert f"worker 1 of 2 ({address}) was not there within 0.02 minutes: start it" in logs[0]
