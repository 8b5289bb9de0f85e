"""The example client against a small model server, whose SavedModel does the answering."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import socketserver
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf

from tests.model_server import serve
from tests.small_model import make_rows, to_example

CLIENT = pathlib.Path(__file__).parents[2] / "examples" / "client.py"
ROWS = [{name: row[name] for name in row if name not in ("label", "time")} for row in make_rows(3, seed=5)]
MISSING = {"user": -1, "item": -1, "country": ""}


@pytest.fixture(scope="module")
def client():
    spec = importlib.util.spec_from_file_location("client", CLIENT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def addresses(small_model):
    with serve(str(small_model)) as served:
        yield served


@pytest.fixture(scope="module")
def expected(small_model):
    examples = tf.constant([to_example(row) for row in ROWS])
    return tf.saved_model.load(str(small_model)).signatures["serving_default"](examples=examples)["ctr"].numpy()[:, 0]


def test_grpc_gives_what_the_model_gives(client, addresses, expected):
    np.testing.assert_allclose(client.ask_grpc(addresses[0], "model", ROWS, 30), expected, rtol=1e-6)


def test_rest_gives_the_same(client, addresses, expected):
    np.testing.assert_allclose(client.ask_rest(addresses[1], "model", ROWS, 30), expected, rtol=1e-6)


def test_grpc_may_leave_features_out(client, addresses):
    assert client.ask_grpc(addresses[0], "model", [{}, {"history": [], "country": None}], 30)[0] > 0
    assert client.ask_grpc(addresses[0], "model", [], 30) == []


def test_a_missing_value_is_the_same_by_both(client, addresses):
    row = ROWS[1] | MISSING
    present = {name: value for name, value in row.items() if name not in MISSING}
    by_rest = client.ask_rest(addresses[1], "model", [row], 30)
    np.testing.assert_allclose(by_rest, client.ask_grpc(addresses[0], "model", [present], 30), rtol=1e-6)


@pytest.mark.parametrize(
    ("ask", "index", "model", "rows", "message"),
    [("ask_grpc", 0, "model", [{"user": "text"}], "^INVALID_ARGUMENT: .*"),
     ("ask_grpc", 0, "other", [{}], "^NOT_FOUND: Servable not found for request: other"),
     ("ask_rest", 1, "model", [{"user": 1}], r"^400: .*input names are \['user'\]"),
     ("ask_rest", 1, "other", ROWS[1:2], "^404: ")],
)  # fmt: skip
def test_what_the_server_refuses_says_why(client, addresses, ask, index, model, rows, message):
    with pytest.raises(client.ClientError, match=message):
        getattr(client, ask)(addresses[index], model, rows, 30)


@pytest.mark.parametrize(("ask", "message"), [("ask_grpc", "DEADLINE_EXCEEDED"), ("ask_rest", "refused")])
def test_no_server_is_an_error(client, ask, message):
    with pytest.raises(client.ClientError, match=message):
        getattr(client, ask)("127.0.0.1:9", "model", ROWS[1:2], 0.5)


def test_an_address_with_no_port_is_an_error(client):
    with pytest.raises(client.ClientError, match="nonnumeric port: 'abc'"):
        client.ask_rest("localhost:abc", "model", ROWS[1:2], 0.5)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", r"BadStatusLine\('SSH-2.0-OpenSSH_9.6.*'\)"),
        (b"HTTP/1.0 200 OK\r\n\r\n<html>", "the answer has no predictions, a ctr each: b'<html>'"),
        (b'HTTP/1.0 200 OK\r\n\r\n{"outputs": 1}', "the answer has no predictions, a ctr each: .*outputs.*"),
        (b'HTTP/1.0 200 OK\r\n\r\n{"predictions": [0.5]}', "the answer has no predictions, a ctr each: .*0.5.*"),
    ],
)
def test_an_answer_that_is_another_is_an_error_of_one_line(client, sent, message):
    class Greet(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(1 << 16)
            self.request.sendall(sent)

    with socketserver.TCPServer(("127.0.0.1", 0), Greet) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(client.ClientError, match=f"^{message}$"):
            client.ask_rest(f"127.0.0.1:{server.server_address[1]}", "model", ROWS[1:2], 30)


def test_a_row_has_its_sequences_padded_with_their_lengths(client):
    assert client.to_rows([{"a": [1, 2], "b": ["x"], "c": 1}, {"a": [], "b": ["y"], "c": 2}]) == [
        {"a": [1, 2], "a_length": 2, "b": ["x"], "b_length": 1, "c": 1},
        {"a": [0, 0], "a_length": 0, "b": ["y"], "b_length": 1, "c": 2},
    ]
    with pytest.raises(ValueError, match="a is empty in all impressions"):
        client.to_rows([{"a": []}])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([{"a": [7, 0], "a_length": 1}, {"a": [7, 8], "a_length": 2}],) * 2,
     ([{"a": [0], "a_length": 0}],) * 2,
     ([{"a": [7, 0], "a_length": 1}, {"a": [1, 2, 3]}],
      [{"a": [7, 0, 0], "a_length": 1}, {"a": [1, 2, 3], "a_length": 3}])],
)  # fmt: skip
def test_the_length_that_a_row_has_stays(client, rows, expected):
    assert client.to_rows(rows) == expected


def test_what_is_no_value_is_a_type_error(client):
    with pytest.raises(TypeError, match="a must be ints, floats or text"):
        client.to_example({"a": [{}]})


def test_the_command_line_needs_nothing_of_this_project(addresses, expected, tmp_path):
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", CLIENT, "--rest", addresses[1]],
        input=lines, capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    found = [json.loads(line)["ctr"] for line in done.stdout.splitlines()]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    code = CLIENT.read_text(encoding="utf-8")
    assert not [name for name in ("pipeline", "schemas", "trainer", "transform") if f"import {name}" in code]


@pytest.mark.parametrize(
    ("line", "message"),
    [("nonsense", "line 2 is not JSON: Expecting value: line 1 column 1 (char 0)"),
     ("[1]", "line 2 is not a JSON object: [1]")],
)  # fmt: skip
def test_the_command_line_names_a_line_that_is_no_json_object(line, message):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", CLIENT, "--rest", "localhost:1"],
        input=f'{{"a": 7}}\n{line}\n', capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"client: {message}"
