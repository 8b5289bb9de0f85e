"""The same sample through TensorFlow Serving itself, in a container: used where the config names an image."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

NAME = "TensorFlow Serving"
_BATCH = 64
_POLL_SECONDS = 0.2


class ServingError(RuntimeError):
    """TensorFlow Serving does not start, or does not answer; the message is one sentence."""


def check_in_docker(
    saved_model: str,
    examples: Sequence[bytes],
    predictions: Sequence[float],
    image: str,
    *,
    max_difference: float,
    timeout_seconds: float,
) -> dict[str, Any]:
    """Returns the check: served by TensorFlow Serving, its warm-up requests included, the sample has the same ctrs.

    Args:
        saved_model: The SavedModel's folder, on this machine.
        examples: Raw serialized tf.Examples.
        predictions: The ctr that each must have.
        image: The container image, such as `tensorflow/serving:2.19.1`.
        max_difference: How much two ctrs may differ.
        timeout_seconds: How long the server may take to start, and for an answer.
    """
    if not _has_engine():
        return {"check": NAME, "ok": True, "text": f"left out: no Docker engine here to run {image}"}
    start = time.monotonic()
    try:
        ctrs = _ask(saved_model, examples, image, timeout_seconds)
        if len(ctrs) != len(predictions):
            raise ServingError(f"{len(ctrs)} ctrs for {len(predictions)} examples")
        difference = max((abs(ctr - known) for ctr, known in zip(ctrs, predictions, strict=True)), default=0.0)
        if not difference <= max_difference:
            raise ServingError(f"a ctr differs by {difference:.3g}, more than serving_check.max_difference")
        ok, text = True, f"{image}, greatest difference {difference:.3g}"
    except ServingError as error:
        ok, text = False, f"{image}: {error}"
    return {"check": NAME, "ok": ok, "text": text, "seconds": round(time.monotonic() - start, 3)}


def _has_engine() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def _ask(saved_model: str, examples: Sequence[bytes], image: str, timeout_seconds: float) -> list[float]:
    volume = f"{os.path.abspath(saved_model)}:/models/model/1:ro"
    arguments = ["-p", "127.0.0.1::8501", "-v", volume, "-e", "MODEL_NAME=model", image]
    container = _docker("run", "--detach", *arguments, timeout_seconds=timeout_seconds)
    try:
        address = _docker("port", container, "8501/tcp", timeout_seconds=timeout_seconds).splitlines()[0]
        url = f"http://{address}/v1/models/model"
        _wait(url, container, timeout_seconds)
        ctrs: list[float] = []
        for start in range(0, len(examples), _BATCH):
            instances = [
                {"examples": {"b64": base64.b64encode(example).decode()}}
                for example in examples[start : start + _BATCH]
            ]
            body = json.dumps({"signature_name": "serving_default", "instances": instances}).encode()
            answer = _get(urllib.request.Request(f"{url}:predict", body), timeout_seconds)
            ctrs += [float(ctr[0]) for ctr in answer["predictions"]]
        return ctrs
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ServingError(f"it answers what is no prediction: {error!r}") from error
    finally:
        subprocess.run(["docker", "rm", "--force", container], capture_output=True, check=False)


def _wait(url: str, container: str, timeout_seconds: float) -> None:
    """Waits until the model is in service, which it is after its warm-up requests."""
    deadline = time.monotonic() + timeout_seconds
    last = "it does not answer"
    while time.monotonic() < deadline:
        try:
            status = _get(urllib.request.Request(url), timeout_seconds)["model_version_status"][0]
            if status["state"] == "AVAILABLE":
                return
            last = f"{status['state']}, {status['status'].get('error_message', '')}"
        except ServingError as error:
            last = str(error)
        time.sleep(_POLL_SECONDS)
    raise ServingError(f"the model is not in service after {timeout_seconds:g} s: {last}")


def _get(request: urllib.request.Request, timeout_seconds: float) -> Any:
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise ServingError(f"status {error.code}, {error.read(300).decode(errors='replace')}") from error
    except (OSError, http.client.HTTPException) as error:
        raise ServingError(str(error)) from error


def _docker(*arguments: str, timeout_seconds: float) -> str:
    try:
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, check=True, timeout=timeout_seconds
        )
    except subprocess.TimeoutExpired:
        raise ServingError(f"docker {arguments[0]} does not end") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"status {error.returncode}"]
        raise ServingError(f"docker {arguments[0]}: {lines[-1][:300]}") from error
    return done.stdout.strip()
