from __future__ import annotations

import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2

from components.schema_gate.executor import SchemaAnomalies, check, describe

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
