from __future__ import annotations

import hashlib
import json
import logging
import pathlib
import re

import pytest
import tensorflow as tf
import tensorflow_transform as tft
from google.protobuf import text_format
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples, Schema, TransformCache, TransformGraph

from components.transform_by_day.executor import Executor
from schemas.features import load_spec
from schemas.tfmd import make_schema

SPEC = """
from schemas.features import FeatureSpec, NumericFeature
NUMBERS = FeatureSpec("numbers", (NumericFeature("price"),))
"""
BEAM_ARGS = [
    "--runner=apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner",
    "--sdk_container_image=unused",
]
FIRST, SECOND, THIRD, LATE = "2026-01-01", "2026-01-02", "2026-01-03", "2025-12-31"


def _example(price):
    example = tf.train.Example()
    example.features.feature["price"].float_list.value.append(price)
    example.features.feature["label"].int64_list.value.append(1)
    return example.SerializeToString()


def _write(path, prices):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for price in prices:
            writer.write(_example(price))


def _mean(graph_uri):
    """The mean price that the analysis has found: where the exported transformation is 0."""
    output = tft.TFTransformOutput(graph_uri)
    layer, spec = output.transform_features_layer(), output.raw_feature_spec()

    def score(price):
        return float(layer(tf.io.parse_example([_example(price)], spec))["numbers"][0, 0])

    return -score(0.0) / (score(1.0) - score(0.0))


class Analyses:
    """Runs the executor on days of prices, with what the analysis before has left."""

    def __init__(self, folder, features, caplog):
        self._folder, self._features, self._caplog, self.cache = folder, features, caplog, None

    def run(self, days):
        """Returns the mean price and how many data sets were analyzed, and how many known."""
        folder = self._folder / str(len(list(self._folder.iterdir())))
        artifacts = {"examples": Examples(), "schema": Schema(), "transform_graph": TransformGraph()}
        artifacts |= {"transformed_examples": Examples(), "updated_analyzer_cache": TransformCache()}
        for name, artifact in artifacts.items():
            artifact.uri = str(folder / name)
        artifacts["examples"].split_names = artifact_utils.encode_split_names(["train", "eval"])
        for index, (day, prices) in enumerate(days.items()):
            digest = hashlib.sha256(str(prices).encode()).hexdigest()
            name = f"data_tfrecord-{day}-{index:05d}-of-{len(days):05d}-{digest}.gz"
            _write(folder / "examples/Split-train" / name, prices)
        _write(folder / "examples/Split-eval/data_tfrecord-00000-of-00001.gz", [1000.0])
        (folder / "schema").mkdir()
        (folder / "schema/schema.pbtxt").write_text(text_format.MessageToString(make_schema(load_spec(self._features))))
        inputs = {name: [artifacts.pop(name)] for name in ("examples", "schema")}
        inputs |= {"analyzer_cache": [self.cache]} if self.cache else {}
        properties = {
            "preprocessing_fn": "transform.preprocessing.preprocessing_fn",
            "custom_config": json.dumps({"features": self._features}),
            "disable_statistics": 1,
        }
        context = Executor.Context(beam_pipeline_args=BEAM_ARGS, tmp_dir=str(folder / "tmp"), unique_id="1")
        self._caplog.clear()
        with self._caplog.at_level(logging.INFO, logger="absl"):
            Executor(context).Do(inputs, {name: [artifact] for name, artifact in artifacts.items()}, properties)
        self.cache = artifacts["updated_analyzer_cache"]
        assert list((folder / "transformed_examples/Split-train").iterdir())
        (counts,) = re.findall(r"analyzing (\d+) data set\(s\), (\d+) known", self._caplog.text)
        return _mean(artifacts["transform_graph"].uri), *map(int, counts)


@pytest.fixture
def analyses(tmp_path, monkeypatch, caplog):
    (tmp_path / "numbers_of_the_test.py").write_text(SPEC)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "runs").mkdir()
    return Analyses(tmp_path / "runs", "numbers_of_the_test:NUMBERS", caplog)


def test_days_that_are_new_or_have_changed_are_analyzed_and_the_result_is_that_of_all(analyses):
    analyses.run({FIRST: [0.0, 2.0], SECOND: [4.0]})
    assert analyses.run({LATE: [7.0], FIRST: [0.0, 5.0], SECOND: [4.0]}) == (pytest.approx(4.0), 2, 1)


def test_a_known_day_counts_by_what_was_found_then(analyses):
    analyses.run({FIRST: [0.0, 2.0], SECOND: [4.0]})
    (first,) = (folder for folder in pathlib.Path(analyses.cache.uri).iterdir() if folder.name.startswith(FIRST))
    assert re.fullmatch(rf"{FIRST}-[0-9a-f]{{64}}", first.name)
    second = next(folder for folder in first.parent.iterdir() if folder != first)
    spare = first.with_name("spare")
    first.rename(spare)
    second.rename(first)
    spare.rename(second)  # each day has the other's findings now: of one row, and of two
    assert analyses.run({FIRST: [0.0, 2.0], THIRD: [10.0]}) == (pytest.approx(7.0), 1, 1)


def test_files_that_are_of_no_day_are_named(analyses):
    with pytest.raises(ValueError, match=r"data_tfrecord-week-00000-of-00001-.*\.gz is not of one day"):
        analyses.run({"week": [1.0]})
