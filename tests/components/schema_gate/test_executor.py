from __future__ import annotations

import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.components.example_validator.executor import DEFAULT_FILE_NAME
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import ExampleAnomalies, Schema

from components.schema_gate.executor import Executor, SchemaAnomalies, check, describe

UNEXPECTED = """anomaly_info { key: "gender" value { path { step: "gender" } severity: ERROR reason {
    short_description: "Unexpected string values"
    description: "Examples contain values missing\\nfrom the schema: X" } } }"""
CASES = {
    "a reason": (UNEXPECTED, ["gender: Unexpected string values: Examples contain values missing from the schema: X"]),
    "two reasons": (
        """anomaly_info { key: "a" value { reason { short_description: "one" } reason { description: "two" } } }""",
        ["a: one", "a: two"],
    ),
    "no reason": ("""anomaly_info { key: "a" value { severity: ERROR } }""", ["a: unknown anomaly"]),
    "texts without reasons": (
        """anomaly_info { key: "a" value { short_description: "Column dropped" } }""",
        ["a: Column dropped"],
    ),
    "the data set": (
        """dataset_anomaly_info { reason { short_description: "Low number of examples" } }""",
        ["the split: Low number of examples"],
    ),
    "no data": ("data_missing: true", ["the split: no examples"]),
    "drift above its threshold only": (
        """drift_skew_info { path { step: "a" } drift_measurements { value: 0.5 threshold: 0.1 } }
           drift_skew_info { path { step: "b" } drift_measurements { value: 0.05 threshold: 0.1 } }
           drift_skew_info { path { step: "c" } skew_measurements { value: 0.2 threshold: 0.1 } }""",
        ["a: drift: 0.5 is above 0.1", "c: skew: 0.2 is above 0.1"],
    ),
    "nothing": ("", []),
}


@pytest.mark.parametrize(("text", "lines"), CASES.values(), ids=CASES.keys())
def test_each_anomaly_is_one_line(text, lines):
    assert list(describe(text_format.Parse(text, anomalies_pb2.Anomalies()))) == lines


def test_examples_without_anomalies_pass():
    assert check({"train": anomalies_pb2.Anomalies(), "eval": anomalies_pb2.Anomalies()}) is None


def test_an_anomaly_in_any_split_stops_with_one_sentence_and_the_list():
    found = text_format.Parse(UNEXPECTED, anomalies_pb2.Anomalies())
    with pytest.raises(SchemaAnomalies) as raised:
        check({"train": anomalies_pb2.Anomalies(), "eval": found})
    first, *rest = str(raised.value).splitlines()
    assert first.startswith("the examples have 1 anomaly: eval: gender: Unexpected string values")
    assert rest == ["eval: gender: Unexpected string values: Examples contain values missing from the schema: X"]


def test_of_many_anomalies_the_first_line_has_three_and_says_how_many_more():
    text = "".join(f'anomaly_info {{ key: "f{n}" value {{ short_description: "bad" }} }}' for n in range(5))
    with pytest.raises(SchemaAnomalies) as raised:
        check({"train": text_format.Parse(text, anomalies_pb2.Anomalies())})
    first, *rest = str(raised.value).splitlines()
    assert first == "the examples have 5 anomalies: train: f0: bad; train: f1: bad; train: f2: bad; and 2 more"
    assert len(rest) == 5


@pytest.fixture
def pass_gate(tmp_path):
    """Runs the executor on the anomalies of each split, in text, and returns the folder that the schema goes to."""

    def run(**splits):
        anomalies, candidate, schema = ExampleAnomalies(), Schema(), Schema()
        anomalies.split_names = artifact_utils.encode_split_names(list(splits))
        for name, artifact in (("anomalies", anomalies), ("candidate", candidate), ("schema", schema)):
            artifact.uri = str(tmp_path / name)
            (tmp_path / name).mkdir()
        for split, text in splits.items():
            file = tmp_path / "anomalies" / f"Split-{split}" / DEFAULT_FILE_NAME
            file.parent.mkdir()
            file.write_bytes(text_format.Parse(text, anomalies_pb2.Anomalies()).SerializeToString())
        (tmp_path / "candidate/schema.pbtxt").write_text('feature { name: "a" }  # as it is')
        Executor().Do({"anomalies": [anomalies], "candidate": [candidate]}, {"schema": [schema]}, {})
        return tmp_path / "schema"

    return run


def test_schema_comes_out_as_it_went_in(pass_gate):
    folder = pass_gate(train="", eval="")
    assert [file.name for file in folder.iterdir()] == ["schema.pbtxt"]
    assert (folder / "schema.pbtxt").read_text() == 'feature { name: "a" }  # as it is'


@pytest.mark.parametrize("split", ["train", "eval"])
def test_no_schema_comes_out_where_a_split_has_anomalies(pass_gate, tmp_path, split):
    with pytest.raises(SchemaAnomalies, match=f"^the examples have 1 anomaly: {split}: gender: Unexpected"):
        pass_gate(**{"train": "", "eval": "", split: UNEXPECTED})
    assert list((tmp_path / "schema").iterdir()) == []


def test_anomalies_of_no_split_are_no_blessing(pass_gate, tmp_path):
    with pytest.raises(ValueError, match="are of no split: let ExampleValidator validate at least one"):
        pass_gate()
    assert list((tmp_path / "schema").iterdir()) == []
