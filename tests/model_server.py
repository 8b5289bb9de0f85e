"""A small model server: a SavedModel behind TensorFlow Serving's gRPC and REST interfaces.

    python tests/model_server.py SAVED_MODEL REST_PORT

Each request runs in the SavedModel itself; only the transport is this file's.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers `Predict` for one model."""

    def __init__(self, directory: str, name: str) -> None:
        self._model, self._name = tf.saved_model.load(directory), name

    def Predict(self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Runs the signature that the request names."""
        if request.model_spec.name != self._name:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {request.model_spec.name}")
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        try:
            outputs = self.run(request.model_spec.signature_name or "serving_default", inputs)
        except (tf.errors.OpError, TypeError, ValueError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error)[:500])
        response = predict_pb2.PredictResponse()
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
        return response

    def run(self, signature: str, inputs: dict[str, Any]) -> dict[str, tf.Tensor]:
        """Returns a signature's outputs; inputs are cast to what it takes."""
        function = self._model.signatures[signature]
        specs = function.structured_input_signature[1]
        if set(inputs) != set(specs):
            raise ValueError(f"input names are {sorted(inputs)}, must be {sorted(specs)}")
        return dict(function(**{name: tf.constant(value, specs[name].dtype) for name, value in inputs.items()}))


def rest_handler(service: PredictionService, name: str) -> type[http.server.BaseHTTPRequestHandler]:
    """Returns a handler of `/v1/models/<name>` (its state) and `/v1/models/<name>:predict` (row format)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
            self._answer(200, {"model_version_status": [state]})

        def do_POST(self) -> None:
            if self.path != f"/v1/models/{name}:predict":
                self._answer(404, {"error": f"Malformed request: POST {self.path}"})
                return
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            rows = [_decode(row) for row in request["instances"]]
            try:
                inputs = {key: [row[key] for row in rows] for key in rows[0]}
                outputs = service.run(request.get("signature_name", "serving_default"), inputs)
            except (tf.errors.OpError, TypeError, ValueError, KeyError) as error:
                self._answer(400, {"error": str(error)[:500]})
                return
            self._answer(200, {"predictions": outputs["ctr"].numpy().tolist()})

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, status: int, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        return base64.b64decode(value["b64"]) if "b64" in value else {key: _decode(v) for key, v in value.items()}
    return [_decode(element) for element in value] if isinstance(value, list) else value


@contextlib.contextmanager
def serve(directory: str, name: str = "model", rest_port: int = 0) -> Iterator[tuple[str, str]]:
    """Serves a model while the context lasts; yields the addresses of gRPC and REST, `127.0.0.1:port` each."""
    service = PredictionService(directory, name)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    rest = http.server.ThreadingHTTPServer(("127.0.0.1", rest_port), rest_handler(service, name))
    thread = threading.Thread(target=rest.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{port}", f"127.0.0.1:{rest.server_port}"
    finally:
        rest.shutdown()
        rest.server_close()
        server.stop(None)


if __name__ == "__main__":
    with serve(sys.argv[1], rest_port=int(sys.argv[2])):
        threading.Event().wait()
