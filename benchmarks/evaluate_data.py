"""The evaluation benchmark's examples and model: MovieLens-shaped rows with a score, which is what the model predicts.

A model that costs nothing leaves the time to the evaluation.
"""

from __future__ import annotations

import hashlib
import inspect
import pathlib
import sys
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format

from schemas.features import FeatureSpec, IdFeature, IdSequence, NumericFeature
from schemas.tfmd import make_schema

CACHE = pathlib.Path(".cache/bench/evaluate")
ROWS_PER_FILE = 100_000
SLICES = (("gender",), ("occupation",), ("genres",))
SPEC = FeatureSpec(
    "evaluate",
    (
        IdFeature("user_id", 10_000, min_presence=1.0),
        IdFeature("gender", 16, dtype="string", min_presence=1.0),
        IdFeature("occupation", 1_000, dtype="string", min_presence=1.0),
        IdSequence("genres", 1_000, max_length=6, dtype="string"),
        NumericFeature("score", min_presence=1.0),
    ),
    group_key="user_id",
)


def prepare(num_rows: int) -> pathlib.Path:
    """Writes examples, schema and model, where that has not been done yet, and returns their folder."""
    source = hashlib.sha256(inspect.getsource(sys.modules[__name__]).encode()).hexdigest()[:8]
    folder = CACHE / f"{num_rows}-{source}"
    if not (folder / "done").is_file():
        split = folder / "examples" / "Split-eval"
        split.mkdir(parents=True, exist_ok=True)
        for index, start in enumerate(range(0, num_rows, ROWS_PER_FILE)):
            with tf.io.TFRecordWriter(str(split / f"data_tfrecord-{index:05d}.gz"), "GZIP") as writer:
                for example in _examples(index, min(ROWS_PER_FILE, num_rows - start)):
                    writer.write(example.SerializeToString())
        (folder / "schema").mkdir(exist_ok=True)
        (folder / "schema" / "schema.pbtxt").write_text(text_format.MessageToString(make_schema(SPEC)))
        model = _Score()
        tf.saved_model.save(
            model, str(folder / "model" / "Format-Serving"), signatures={"serving_default": model.serve}
        )
        (folder / "done").touch()
    return folder


class _Score(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(self, examples: Any) -> dict[str, Any]:
        parsed = tf.io.parse_example(examples, {"score": tf.io.FixedLenFeature([1], tf.float32)})
        return {"ctr": parsed["score"]}


def _examples(seed: int, num_rows: int) -> Any:
    """Yields rows of 21 occupations and 18 genres, two a row on average."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, num_rows)
    scores = 1 / (1 + np.exp(-generator.normal(labels - 0.5, 1.5)))
    users = generator.integers(0, max(10, num_rows // 50), num_rows)
    for label, score, user in zip(labels.tolist(), scores.tolist(), users.tolist(), strict=True):
        example = tf.train.Example()
        feature = example.features.feature
        feature["label"].int64_list.value.append(label)
        feature["score"].float_list.value.append(score)
        feature["user_id"].int64_list.value.append(user)
        feature["gender"].bytes_list.value.append(b"FM"[user % 2 : user % 2 + 1])
        feature["occupation"].bytes_list.value.append(b"occupation %d" % (user % 21))
        genres = {(user + label) % 18, (user // 7) % 18, user % 5}
        feature["genres"].bytes_list.value.extend(b"genre %d" % genre for genre in sorted(genres)[: user % 4])
        yield example
