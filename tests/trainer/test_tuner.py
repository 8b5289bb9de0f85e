from __future__ import annotations

import gc
import json
import logging
import weakref
from types import SimpleNamespace

import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata
from tfx.components.trainer.fn_args_utils import FnArgs

from schemas.features import FeatureSpec, IdFeature, NumericFeature
from schemas.tfmd import make_schema
from trainer import run, tuner
from trainer.finite import NonFiniteLossError
from trainer.run import run_fn
from trainer.tuner import split_newest, tuner_fn

SPEC = FeatureSpec("test", (IdFeature("item", 5), NumericFeature("x")))
ROWS_PER_FILE = 250
NUM_FILES = 4


def _write(file, rows):
    with tf.io.TFRecordWriter(str(file), tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
        for item, x, label in rows:
            feature = {
                "item": tf.train.Feature(int64_list=tf.train.Int64List(value=[item])),
                "x": tf.train.Feature(float_list=tf.train.FloatList(value=[x])),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def _write_log(folder, to_label=lambda row, x: x > 0):
    """Writes a log in four shards: x is -1 or 1 and a thousandth of the row's number."""
    folder.mkdir()
    for part in range(NUM_FILES):
        rows = range(part * ROWS_PER_FILE, (part + 1) * ROWS_PER_FILE)
        xs = [(-1 if row % 2 else 1) * (1 + row / 1000) for row in rows]
        shard = [(row % 5, x, int(to_label(row, x))) for row, x in zip(rows, xs, strict=True)]
        _write(folder / f"data_tfrecord-{part:05d}-of-{NUM_FILES:05d}.gz", shard)
    return [f"{folder}/*"]


def _pack(inputs):
    """A transformation of the test's own: the trainer does not know the project's."""

    def column(name):  # every row has exactly one value
        return tf.reshape(inputs[name], [-1, 1])

    return {
        "ids": column("item") + 1,
        "numbers": column("x") * 2,
        "label": tf.cast(column("label"), tf.float32)[:, 0],
    }


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """The folder of a transformation that doubles x."""
    with tft_beam.Context(temp_dir=str(tmp_path_factory.mktemp("tft"))):
        rows = [{"item": 1, "x": 0.5, "label": 1}]
        raw = (rows, dataset_metadata.DatasetMetadata(make_schema(SPEC)))
        _, transform_fn = raw | tft_beam.AnalyzeAndTransformDataset(_pack)
        folder = str(tmp_path_factory.mktemp("graph"))
        _ = transform_fn | tft_beam.WriteTransformFn(folder)
    return folder


@pytest.fixture
def fn_args(graph, tmp_path, monkeypatch):
    """What TFX hands to `tuner_fn`, by the settings."""
    monkeypatch.setattr("trainer.run.load_spec", lambda path: SPEC)

    def make(training, tuning, to_label=lambda row, x: x > 0):
        folder = tmp_path / "log"
        patterns = [f"{folder}/*"] if folder.exists() else _write_log(folder, to_label)
        (tmp_path / "work").mkdir(exist_ok=True)
        only = {name: [] for name, value in vars(tuner.TunerConfig()).items() if isinstance(value, tuple)}
        config = {
            "features": "test:SPEC",
            "model": json.dumps({"hidden_units": [4], "embedding_dim": 2}),
            "training": json.dumps({"batch_size": 100, "max_epochs": 1, "monitor": "log_loss"} | training),
            "tuner": json.dumps(only | tuning),
        }
        return FnArgs(
            train_files=patterns,
            transform_graph_path=graph,
            working_dir=str(tmp_path / "work"),
            custom_config=config,
        )

    return make


def _search(fn_args):
    result = tuner_fn(fn_args)
    result.tuner.search(**result.fit_kwargs)
    return result.tuner


def _trials(search):
    return [(trial.hyperparameters.values, trial.score) for _, trial in sorted(search.oracle.trials.items())]


def test_what_is_obviously_better_is_chosen_and_the_first_trial_is_the_configs(fn_args, caplog, capsys):
    with caplog.at_level(logging.INFO, logger="trainer"):
        search = _search(fn_args({"learning_rate": 1e-6}, {"trials": 5, "learning_rate": [0.1, 1e-6]}))
    (own, own_loss), (better, better_loss) = _trials(search)  # there are no more than two combinations
    assert own == {"learning_rate": 1e-6}
    assert better == search.get_best_hyperparameters()[0].values == {"learning_rate": 0.1}
    assert better_loss < 0.1 < own_loss
    lines = [record.getMessage() for record in caplog.records if record.name == "trainer.tuner"]
    assert lines == [
        "trials learn from the 900 oldest rows of the training split; what they call eval are its 100 newest",
        f"trial 1/5: val_log_loss {own_loss:.4f}, best {own_loss:.4f} of trial 1; learning_rate 1e-06",
        f"trial 2/5: val_log_loss {better_loss:.4f}, best {better_loss:.4f} of trial 2; learning_rate 0.1",
    ]
    assert capsys.readouterr().out == ""


def test_the_auc_is_maximized(fn_args):
    search = _search(fn_args({"learning_rate": 1e-9, "monitor": "auc"}, {"trials": 2, "learning_rate": [0.1]}))
    scores = [score for _, score in _trials(search)]
    assert scores[1] == pytest.approx(1.0)
    assert scores[0] < 0.5  # this seed's first weights
    assert search.get_best_hyperparameters()[0].values == {"learning_rate": 0.1}


def test_the_configs_own_value_wins_where_it_is_better(fn_args):
    search = _search(fn_args({"learning_rate": 0.1}, {"trials": 3, "learning_rate": [1e-6, 1e-5]}))
    assert len(_trials(search)) == 3
    assert search.get_best_hyperparameters()[0].values == {"learning_rate": 0.1}


def test_trials_are_compared_on_the_newest_rows_alone(fn_args):
    # In the newest tenth the clicks are the other way round: what learns more of the rest is worse there.
    search = _search(
        fn_args(
            {"learning_rate": 1e-6},
            {"trials": 2, "learning_rate": [0.1]},
            to_label=lambda row, x: (x > 0) == (row < 900),
        )
    )
    assert search.get_best_hyperparameters()[0].values == {"learning_rate": 1e-6}


def test_the_newest_rows_are_the_last_ones_of_the_last_shards_and_are_transformed(graph, tmp_path):
    patterns = _write_log(tmp_path / "log")
    transform_output = tft.TFTransformOutput(graph)
    xs = [(-1 if row % 2 else 1) * (1 + row / 1000) for row in range(NUM_FILES * ROWS_PER_FILE)]
    for share, num_older in ((0.1, 900), (0.3, 700), (0.0001, 999), (0.9999, 1)):  # the same folder each time
        parts = split_newest(patterns, SPEC, transform_output, share, str(tmp_path / "rows"))
        older, newest = (np.concatenate([chunk["numbers"][:, 0] for chunk in part]) for part in parts)
        np.testing.assert_allclose(sorted(older), sorted(2 * np.float32(xs[:num_older])))
        np.testing.assert_allclose(sorted(newest), sorted(2 * np.float32(xs[num_older:])))


def test_one_row_cannot_be_split(graph, tmp_path):
    _write(tmp_path / "data.gz", [(1, 0.5, 1)])
    with pytest.raises(ValueError, match="the training split has 1 rows: too few"):
        split_newest([f"{tmp_path}/*.gz"], SPEC, tft.TFTransformOutput(graph), 0.1, str(tmp_path / "rows"))


def test_a_search_that_was_killed_begins_anew(fn_args, tmp_path):
    arguments = fn_args({"learning_rate": 1e-6}, {"trials": 3, "learning_rate": [0.1], "embedding_dim": [3]})
    before = _trials(_search(arguments))
    (tmp_path / "work/trials/trial_1/trial.json").write_text("{", encoding="utf-8")
    (tmp_path / "work/trials/oracle.json").write_text("{", encoding="utf-8")
    assert _trials(_search(arguments)) == before
    assert len(before) == 3


@pytest.mark.parametrize("seed", [0, 7])
def test_the_seed_determines_the_choices(fn_args, monkeypatch, seed):
    monkeypatch.setattr(tuner, "fit", lambda *_: (None, SimpleNamespace(history={"val_log_loss": [0.5]})))
    tuning = {"trials": 4, "learning_rate": [rate / 10 for rate in range(1, 9)], "embedding_dim": [1, 3, 4, 5]}
    first, second = (_trials(_search(fn_args({"seed": seed}, tuning))) for _ in range(2))
    assert first == second
    assert first[0][0] == {"learning_rate": 0.001, "embedding_dim": 2}  # the config's own of 45
    other = _trials(_search(fn_args({"seed": seed + 1}, tuning)))
    assert [values for values, _ in first[1:]] != [values for values, _ in other[1:]]


def test_trials_end_after_their_epochs(fn_args, caplog):
    with caplog.at_level(logging.INFO, logger="trainer"):
        _search(fn_args({"max_epochs": 9}, {"trials": 1, "epochs": 2, "dropout": [0.5]}))
    epochs = [record.getMessage()[:9] for record in caplog.records if record.name == "trainer.train"]
    assert epochs == ["epoch 1/2", "epoch 2/2"]


def test_a_trial_that_diverges_has_failed_and_the_others_go_on(fn_args, caplog):
    rates = [1e32, 1e34, 1e36, 1e38]
    arguments = fn_args({"learning_rate": 0.01, "max_epochs": 2}, {"trials": 5, "learning_rate": rates})
    with caplog.at_level(logging.INFO, logger="trainer"):
        search = _search(arguments)
    scores = {values["learning_rate"]: score for values, score in _trials(search)}
    assert len(scores) == 5  # though KerasTuner gives up after three failures in a row
    assert {rate for rate, score in scores.items() if score is None} == {rate for rate in scores if rate > 1}
    assert search.get_best_hyperparameters()[0].values == {"learning_rate": 0.01}
    failures = [record.getMessage() for record in caplog.records if ": failed: " in record.getMessage()]
    assert len(failures) == sum(score is None for score in scores.values())
    assert "failed: the loss is not finite in epoch" in failures[0]
    assert "checkpoint" not in failures[0]


def test_a_config_that_diverges_by_itself_ends_the_search(fn_args):
    arguments = fn_args({"learning_rate": 1e30, "max_epochs": 2}, {"trials": 3, "learning_rate": [0.1]})
    with pytest.raises(keras_tuner.errors.FatalError, match="the loss is not finite") as error:
        _search(arguments)
    assert isinstance(error.value.__cause__, NonFiniteLossError)


def test_validation_rows_of_one_class_have_no_auc(fn_args):
    arguments = fn_args(
        {"monitor": "auc"}, {"trials": 3, "dropout": [0.1]}, to_label=lambda row, x: row < 900 and x > 0
    )
    with pytest.raises(keras_tuner.errors.FatalError, match="validation rows may be of one class only"):
        _search(arguments)


def test_an_error_is_not_swallowed(fn_args, monkeypatch):
    calls = []

    def fail_later(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            raise OSError("the disk is full")
        return real(*arguments)

    real = tuner.fit
    monkeypatch.setattr(tuner, "fit", fail_later)
    with pytest.raises(keras_tuner.errors.FatalError, match="the disk is full") as error:
        _search(fn_args({}, {"trials": 5, "dropout": [0.1, 0.2, 0.3]}))
    assert isinstance(error.value.__cause__, OSError)
    assert len(calls) == 2


def test_the_models_of_the_trials_are_freed(fn_args, monkeypatch):
    models = []

    def remember(*arguments):
        model, history = real(*arguments)
        models.append(weakref.ref(model))
        return model, history

    real = tuner.fit
    monkeypatch.setattr(tuner, "fit", remember)
    _search(fn_args({}, {"trials": 4, "dropout": [0.1, 0.2, 0.3]}))
    gc.collect()
    assert len(models) == 4
    assert sum(model() is not None for model in models) <= 1  # TensorFlow may hold the last one


def test_the_trainer_takes_what_the_tuner_has_chosen(fn_args, graph, tmp_path, monkeypatch):
    search = _search(fn_args({}, {"trials": 2, "embedding_dim": [3], "hidden_units": [[4]]}))
    chosen = json.loads(json.dumps(search.oracle.trials["1"].hyperparameters.get_config()))
    assert chosen["values"] == {"embedding_dim": 3, "hidden_units": "[4]"}
    transformed = tmp_path / "transformed.gz"
    with tf.io.TFRecordWriter(str(transformed), tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
        for label in (0.0, 1.0, 0.0, 1.0):
            feature = {
                "ids": tf.train.Feature(int64_list=tf.train.Int64List(value=[1])),
                "numbers": tf.train.Feature(float_list=tf.train.FloatList(value=[label])),
                "label": tf.train.Feature(float_list=tf.train.FloatList(value=[label])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    models = []
    monkeypatch.setattr(run, "export", lambda model, *_: models.append(model))
    for hyperparameters in (None, chosen):
        arguments = fn_args({}, {"trials": 2})
        arguments.custom_config["checkpoints"] = str(tmp_path / "checkpoints")
        arguments.train_files = arguments.eval_files = [str(transformed)]
        arguments.model_run_dir = arguments.serving_model_dir = str(tmp_path / "out")
        arguments.hyperparameters = hyperparameters
        run_fn(arguments)
    assert [model.embedding_table.table.shape[1] for model in models] == [1 + 2, 1 + 3]


def test_other_hyperparameters_have_other_checkpoints(fn_args, tmp_path):
    arguments = fn_args({}, {"trials": 2, "dropout": [0.1]})
    arguments.custom_config["checkpoints"] = str(tmp_path / "checkpoints")
    folders = set()
    for hyperparameters in (None, {"values": {"dropout": 0.1}}, {"values": {"dropout": 0.2}}):
        arguments.hyperparameters = hyperparameters
        folders.add(run._checkpoints_dir(arguments))
    assert len(folders) == 3
