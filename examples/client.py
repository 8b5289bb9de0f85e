"""Asks TensorFlow Serving for click-through rates, by gRPC or REST.

    python examples/client.py --grpc localhost:8500 --model movielens < impressions.jsonl
    python examples/client.py --rest localhost:8501 --model movielens < impressions.jsonl

Reads a JSON object a line: feature -> value, or list of values; prints a ctr a line. It needs `tensorflow-serving-api`
and nothing of this project: copy it. gRPC sends serialized tf.Examples to the signature `serving_default`; REST sends
dense rows to `predict`, of which every feature must be there, and every sequence with its `<name>_length`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

Impression = dict[str, Any]


class ClientError(RuntimeError):
    """The server refuses a request, or does not answer; the message is its own."""


def to_example(impression: Impression) -> bytes:
    """Returns an impression as a serialized tf.Example.

    An int is an id or a number that is whole in the log, a float another number: what the model was trained with must
    be sent, `1.0` and not `1` for a float32.

    Args:
        impression: Feature -> int, float, text, or a list of one of them; None, or an empty list, where it is missing.

    Raises:
        TypeError: A value is none of these.
    """
    example = tf.train.Example()
    for name, value in impression.items():
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not values:
            continue
        feature = example.features.feature[name]
        if all(isinstance(value, str) for value in values):
            feature.bytes_list.value.extend(value.encode() for value in values)
        elif all(type(value) is int for value in values):
            feature.int64_list.value.extend(values)
        elif all(type(value) in (int, float) for value in values):
            feature.float_list.value.extend(values)
        else:
            raise TypeError(f"{name} must be ints, floats or text, not {value!r}")
    return bytes(example.SerializeToString())


def ask_grpc(address: str, model: str, impressions: Sequence[Impression], timeout_seconds: float = 1.0) -> list[float]:
    """Returns the ctr of each impression, in one request to the signature `serving_default`.

    Args:
        address: `host:port`; TensorFlow Serving's port is 8500.
        model: The model's name in the server.
        impressions: See `to_example`.
        timeout_seconds: How long to wait for the answer.

    Raises:
        ClientError: There is no answer, or it is an error.
    """
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = "serving_default"
    examples = [to_example(impression) for impression in impressions]
    request.inputs["examples"].CopyFrom(tf.make_tensor_proto(examples, tf.string, [len(examples)]))
    with grpc.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            # A service keeps the channel for all its requests, and waits a moment for a server that is starting.
            response = stub.Predict(request, timeout=timeout_seconds, wait_for_ready=True)
        except grpc.RpcError as error:
            raise ClientError(f"{error.code().name}: {error.details()}") from error
    return [float(ctr) for ctr in tf.make_ndarray(response.outputs["ctr"])[:, 0]]


def to_rows(impressions: Sequence[Impression]) -> list[Impression]:
    """Returns impressions as REST's row format: each sequence padded to the longest, with its length behind it.

    A length that is in an impression stays.

    Raises:
        ValueError: A sequence is empty in all of them, so that nothing tells what to pad it with.
    """
    names = list(dict.fromkeys(name for impression in impressions for name in impression))
    sequences = [name for name in names if any(isinstance(row.get(name), list) for row in impressions)]
    rows = [dict(impression) for impression in impressions]
    for name in sequences:
        values = [value for row in impressions for value in row.get(name) or []]
        if not values:
            raise ValueError(f"{name} is empty in all impressions: send it with a padding of 0 or '' and length 0")
        padding = "" if isinstance(values[0], str) else 0
        longest = max(len(row.get(name) or []) for row in impressions)
        for row in rows:
            known = row.get(name) or []
            row[name] = known + [padding] * (longest - len(known))
            row.setdefault(f"{name}_length", len(known))  # a row that is padded already says how many count
    return rows


def ask_rest(address: str, model: str, impressions: Sequence[Impression], timeout_seconds: float = 1.0) -> list[float]:
    """Returns the ctr of each impression, in one request to the signature `predict`.

    Args:
        address: `host:port`; TensorFlow Serving's port is 8501.
        model: The model's name in the server.
        impressions: Rows as the signature has them, or with bare sequences, see `to_rows`. A missing id is -1 or ''.
        timeout_seconds: How long to wait for the answer.

    Raises:
        ClientError: There is no answer, or it is an error.
    """
    body = json.dumps({"signature_name": "predict", "instances": to_rows(impressions)}).encode()
    request = urllib.request.Request(f"http://{address}/v1/models/{model}:predict", body)
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds) as response:
            answer = response.read()
    except urllib.error.HTTPError as error:
        raise ClientError(f"{error.code}: {error.read().decode(errors='replace')}") from error
    except OSError as error:
        raise ClientError(str(error)) from error
    except http.client.HTTPException as error:  # its text may be what the other side sent, whatever that is
        raise ClientError(repr(error)) from error
    try:
        return [float(ctr[0]) for ctr in json.loads(answer)["predictions"]]
    except (ValueError, LookupError, TypeError) as error:
        raise ClientError(f"the answer has no predictions, a ctr each: {answer[:200]!r}") from error


def main() -> None:
    """Asks for what standard input holds."""
    parser = argparse.ArgumentParser(description="Ask TensorFlow Serving for click-through rates.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--grpc", metavar="HOST:PORT")
    where.add_argument("--rest", metavar="HOST:PORT")
    parser.add_argument("--model", default="model", help="its name in the server")
    arguments = parser.parse_args()
    impressions = []
    for number, line in enumerate(sys.stdin, start=1):
        try:
            impressions.append(json.loads(line))
        except ValueError as error:
            sys.exit(f"client: line {number} is not JSON: {error}")
        if not isinstance(impressions[-1], dict):
            sys.exit(f"client: line {number} is not a JSON object: {line.strip()}")
    try:
        if arguments.grpc:
            ctrs = ask_grpc(arguments.grpc, arguments.model, impressions)
        else:
            ctrs = ask_rest(arguments.rest, arguments.model, impressions)
    except (ClientError, TypeError, ValueError) as error:
        sys.exit(f"client: {error}")
    for ctr in ctrs:
        print(json.dumps({"ctr": ctr}))


if __name__ == "__main__":
    main()
