from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import log_loss, roc_auc_score

from components.evaluation_report.importance import explain, load_scorer, read_columns, read_sample
from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature
from trainer.signatures import dense_inputs

SPEC = FeatureSpec(
    "s",
    (
        NumericFeature("price"),
        NumericFeature("age", dtype="int64"),
        IdFeature("shop", 10),
        IdFeature("country", 10, dtype="string"),
        IdSequence("history", 10, max_length=3),
        IdSequence("tags", 10, max_length=3, dtype="string"),
    ),
    weight="weight",
)


def _example(**columns):
    kinds = {bytes: ("bytes_list", tf.train.BytesList), float: ("float_list", tf.train.FloatList)}
    features = {}
    for name, values in columns.items():
        kind, make = kinds.get(type(values[0]), ("int64_list", tf.train.Int64List))
        features[name] = tf.train.Feature(**{kind: make(value=values)})
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.fixture(scope="module")
def examples():
    """Clicks are as likely as the price says, and the longer the history the more; the rest says nothing."""
    generator = np.random.default_rng(0)
    made = []
    for _ in range(3000):
        price, length = generator.normal(), generator.integers(1, 4)
        click = generator.random() < 1 / (1 + np.exp(-(2 * price + length - 2)))
        shop = int(generator.integers(1, 5))
        columns = {"price": [float(price)], "shop": [shop], "history": [1] * int(length), "label": [int(click)]}
        made.append(_example(**columns, weight=[1.0]))
    return made


def _score(columns):
    return 1 / (1 + np.exp(-(2 * columns["price"] + columns["history_length"] - 2.0)))


def test_a_field_is_worth_what_the_model_loses_without_it(examples):
    found = explain(SPEC, _score, examples, num_repeats=4)
    fields = {field.field: field for field in found.fields}
    assert [field.field for field in found.fields][:2] == ["price", "history"]
    columns, labels, _ = read_columns(SPEC, examples)
    for name, column in (("price", "price"), ("history", "history_length")):
        generator = np.random.default_rng(9)
        shuffled = [_score({**columns, column: generator.permutation(columns[column])}) for _ in range(30)]
        auc = np.mean([roc_auc_score(labels, scores) for scores in shuffled])
        rise = np.mean([log_loss(labels, scores) for scores in shuffled]) - found.log_loss
        assert found.auc - fields[name].auc.value == pytest.approx(auc, abs=0.01)
        assert fields[name].log_loss.value == pytest.approx(rise, abs=0.02)
    assert (found.auc, found.log_loss) == pytest.approx(
        (roc_auc_score(labels, _score(columns)), log_loss(labels, _score(columns)))
    )
    assert fields["price"].log_loss.value > fields["history"].log_loss.value > 0.01
    assert 0 < fields["price"].auc.spread < 0.02
    for unused in ("age", "shop", "country", "tags"):
        assert fields[unused].auc.value == fields[unused].log_loss.value == fields[unused].auc.spread == 0
    assert (found.num_examples, found.num_repeats) == (3000, 4)
    assert explain(SPEC, _score, examples, num_repeats=4) == found


def test_weights_count(examples):
    weightless = [_example(price=[-9.0], history=[1], label=[1], weight=[0.0])] * 500
    assert explain(SPEC, _score, examples + weightless, 1).auc == pytest.approx(explain(SPEC, _score, examples, 1).auc)


def test_columns_are_what_the_signature_predict_takes():
    full = _example(price=[1.5], age=[7], shop=[3, 4], country=[b""], history=[1, 2, 3, 4], tags=[b"a", b"", b"b"],
                    label=[1], weight=[0.5])  # fmt: skip
    columns, labels, weights = read_columns(SPEC, [full, _example(label=[0], weight=[2.0])])
    assert set(columns) == set(dense_inputs(SPEC))
    assert (labels.tolist(), weights.tolist()) == ([1, 0], [0.5, 2])
    assert {name: values.tolist() for name, values in columns.items() if name not in ("price", "age")} == {
        "shop": [3, -1],
        "country": [b"", b""],
        "history": [[2, 3, 4], [0, 0, 0]],
        "history_length": [3, 0],
        "tags": [[b"a", b"", b"b"], [b""] * 3],  # an empty string has a place, as in the transformation
        "tags_length": [3, 0],
    }
    np.testing.assert_equal(columns["price"], np.array([1.5, np.nan], np.float32))
    np.testing.assert_equal(columns["age"], np.array([7, np.nan], np.float32))


def test_one_class_or_nothing_cannot_be_explained():
    with pytest.raises(ValueError, match="no examples"):
        explain(SPEC, _score, [])
    with pytest.raises(ValueError, match="all 2 impressions are of one class"):
        explain(SPEC, _score, [_example(label=[1], weight=[1.0])] * 2)


def test_a_sample_is_spread_evenly_over_all_files_and_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("components.evaluation_report.importance.MAX_EXAMPLES", 100)
    for shard in range(4):
        path = str(tmp_path / f"data_tfrecord-{shard:05d}-of-00004.gz")
        with tf.io.TFRecordWriter(path, "GZIP") as writer:
            for row in range(250):
                writer.write(b"%d %d" % (shard, row))
    sample = [tuple(map(int, example.split())) for example in read_sample([str(tmp_path)], 1000, SPEC, 3)]
    assert len(sample) == len(set(sample)) == 100
    for shard in range(4):
        rows = [row for of_shard, row in sample if of_shard == shard]
        assert 20 <= len(rows) <= 30
        assert max(rows) > 220
    assert len(read_sample([str(tmp_path)], 60, SPEC, 3)) == 100  # a wrong count costs no more
    assert len(read_sample([str(tmp_path)], 1000, SPEC, 100_000)) == 1
    assert read_sample([str(tmp_path / "nowhere")], 10, SPEC, 3) == []


def test_a_model_without_the_signature_is_an_error(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path))
    with pytest.raises(ValueError, match="no signature predict"):
        load_scorer(str(tmp_path), SPEC)


@pytest.mark.parametrize("number", [19_999, 39_999, 59_999])
def test_the_sample_is_evenly_over_all_files(number, tmp_path):
    spec = FeatureSpec("s", (IdFeature("shop", 10),))
    for file in range(4):
        with tf.io.TFRecordWriter(str(tmp_path / f"part-{file}.gz"), tf.io.TFRecordOptions("GZIP")) as writer:
            for index in range(file, number, 4):
                writer.write(_example(shop=[index // 4]))
    examples = read_sample([str(tmp_path)], number, spec, 1)
    places = [tf.train.Example.FromString(one).features.feature["shop"].int64_list.value[0] for one in examples]
    assert len(examples) == min(number, 20_000)
    share, _ = np.histogram(places, 8, (0, number / 4))
    assert share.max() - share.min() < 0.02 * len(examples)


def test_examples_of_another_spec_are_told_in_a_sentence():
    of_int = _example(age=[7], label=[1], weight=[1.0])
    spec = FeatureSpec("s", (NumericFeature("age"),))
    with pytest.raises(ValueError, match=r"another feature spec than s is now \(.*age.*\): `ctr run` makes them anew"):
        read_columns(spec, [of_int])
