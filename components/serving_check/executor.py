"""Runs the serving check on a sample of the eval split, and blesses the model that passes."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging
from google.protobuf import json_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_serving.apis import prediction_log_pb2
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils, path_utils

from components.serving_check.docker import check_in_docker
from components.serving_check.evaluator import evaluator_predictions
from schemas.errors import one_line

REPORT = "serving_check.json"

_FOLDER = pathlib.Path(__file__).parent
_WARMUP = "assets.extra/tf_serving_warmup_requests"

Check = dict[str, Any]


class Executor(BaseExecutor):
    """Checks the model and writes the blessing."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Checks a model.

        Args:
            input_dict: `model`, `examples` and `schema`, one artifact each.
            output_dict: `blessing`, one InfraBlessing artifact: as TFX's InfraValidator writes it (the property
                `blessed`, a file `INFRA_BLESSED` or `INFRA_NOT_BLESSED`), with a file `serving_check.json`, the checks
                in their order: `check`, `ok`, `text` (the figure, or what is wrong and what to do about it), `seconds`.
            exec_properties: `settings` and `eval_config`, both as JSON.

        Raises:
            ValueError: There are no examples to check with.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        settings = json.loads(exec_properties["settings"])
        eval_config = json_format.Parse(exec_properties["eval_config"], config_pb2.EvalConfig())
        model = artifact_utils.get_single_instance(input_dict["model"])
        model_uri = saved_model = path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model))
        examples = read_sample(input_dict["examples"], settings["num_examples"])
        schema = io_utils.SchemaReader().read(
            io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
        )
        with tempfile.TemporaryDirectory() as folder:
            if "://" in saved_model:  # other processes read files
                saved_model = os.path.join(folder, "model")
                io_utils.copy_dir(model_uri, saved_model)
            report = check_model(saved_model, examples, schema, eval_config, settings)
        write_blessing(artifact_utils.get_single_instance(output_dict["blessing"]), report)


def check_model(
    saved_model: str,
    examples: Sequence[bytes],
    schema: schema_pb2.Schema,
    eval_config: config_pb2.EvalConfig,
    settings: Mapping[str, Any],
) -> list[Check]:
    """Returns all checks of a model.

    Args:
        saved_model: The SavedModel's folder, on this machine.
        examples: Raw serialized tf.Examples.
        schema: Their schema.
        eval_config: The Evaluator's.
        settings: The fields of `pipeline.config.ServingCheckConfig`.
    """
    report = [check_warmup_file(saved_model)]
    predictions: list[float] = []
    try:
        predictions = evaluator_predictions(saved_model, examples, schema, eval_config)
    except Exception as error:  # whatever the model raises: that is a verdict on it
        report.append(_failed("the Evaluator's predictions", f"TFMA cannot predict with the model: {_one_line(error)}"))
    report += run_check(saved_model, examples, predictions, settings)
    image = settings["docker_image"]
    if image and predictions:
        limits = {name: settings[name] for name in ("max_difference", "timeout_seconds")}
        report.append(check_in_docker(saved_model, examples, predictions, image, **limits))
    return report


def read_sample(examples: Sequence[Artifact], count: int) -> list[bytes]:
    """Returns the first raw examples of the split `eval`.

    Args:
        examples: The Examples artifacts.
        count: How many, at most.

    Raises:
        ValueError: The split has none.
    """
    files = [
        file
        for uri in artifact_utils.get_split_uris(list(examples), "eval")
        for file in sorted(fileio.glob(io_utils.all_files_pattern(uri)))
    ]
    records = tf.data.TFRecordDataset(files, compression_type="GZIP") if files else []
    # Equal impressions have equal ctrs: one of each is enough, and an example is then its own key.
    sample: dict[bytes, None] = {}
    for record in records:
        sample[record.numpy()] = None
        if len(sample) == count:
            break
    if not sample:
        raise ValueError("the split eval has no examples, which the serving check needs: see log.eval_days")
    return list(sample)


def read_warmup(saved_model: str) -> list[dict[str, Any]]:
    """Returns a model's warm-up requests, in the form that `check.py` takes.

    Raises:
        Exception: The file is not what TF Serving takes.
    """
    requests = []
    for record in tf.data.TFRecordDataset(os.path.join(saved_model, _WARMUP)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        inputs = {name: base64.b64encode(value.SerializeToString()).decode() for name, value in request.inputs.items()}
        requests.append({"signature": request.model_spec.signature_name, "inputs": inputs})
    return requests


def check_warmup_file(saved_model: str) -> Check:
    """Checks what the isolated process cannot: that the warm-up file holds TF Serving's messages."""
    try:
        count = len(read_warmup(saved_model))
    except Exception as error:
        return _failed("warm-up file", f"{_WARMUP} cannot be read, TF Serving would not start: {_one_line(error)}")
    if not count:  # which a file that is cut off within its first record looks like, too
        return _failed("warm-up file", f"{_WARMUP} holds no request: export the model again")
    return {"check": "warm-up file", "ok": True, "text": f"{count} requests"}


def run_check(
    saved_model: str, examples: Sequence[bytes], predictions: Sequence[float], settings: Mapping[str, Any]
) -> list[Check]:
    """Runs `check.py` in a process of its own that has TensorFlow and nothing of this project.

    Args:
        saved_model: The SavedModel's folder.
        examples: Raw serialized tf.Examples.
        predictions: The Evaluator's ctr of each.
        settings: Limits, and `timeout_seconds`.

    Returns:
        The checks. A process that crashes or hangs is a failure of the check that it was at.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        with tf.io.TFRecordWriter(str(home / "examples")) as writer:
            for example in examples:
                writer.write(example)
        try:
            warmup = read_warmup(saved_model)
        except Exception:
            warmup = []  # which `check_warmup_file` has told
        job = {
            "model": os.path.abspath(saved_model),
            "examples": str(home / "examples"),
            "predictions": list(predictions),
            "warmup": warmup,
            "limits": dict(settings),
            "report": str(home / "report.json"),
        }
        (home / "job.json").write_text(json.dumps(job), encoding="utf-8")
        end = _run_isolated(home, settings["timeout_seconds"])
        report_file = home / "report.json"
        report: list[Check] = json.loads(report_file.read_text(encoding="utf-8")) if report_file.is_file() else []
    if end or not report:
        report = report or [_failed("start", "")]
        report[-1] |= {"ok": False, "text": end or "the process wrote no report"}
    return report


def _run_isolated(home: pathlib.Path, timeout_seconds: float) -> str:
    """Returns how the process ended, if not well."""
    folders = [str(pathlib.Path(tf.__file__).parents[1])]
    command = [
        sys.executable,
        "-I",
        "-S",
        str(_FOLDER / "isolated.py"),
        str(_FOLDER / "check.py"),
        "job.json",
        *folders,
    ]
    environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    try:
        process = subprocess.run(
            command,
            cwd=home,
            env=environment | {"TF_CPP_MIN_LOG_LEVEL": "2", "HOME": str(home)},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no end after serving_check.timeout_seconds, {timeout_seconds:g} s: the model hangs, or raise the limit"
    if process.returncode == 0:
        return ""
    logging.error("the serving check's process: %s", process.stderr[-10_000:])
    if process.returncode < 0:
        killed = signal.Signals(-process.returncode).name
        return f"the process was killed by {killed}: the model crashes where it is served; see the log"
    lines = process.stderr.strip().splitlines() or ["nothing was written"]
    return f"the process ended with status {process.returncode}: {lines[-1][:300]}"


def write_blessing(blessing: Artifact, report: Sequence[Check]) -> None:
    """Writes the report and the verdict: blessed where every check is ok."""
    is_blessed = all(check["ok"] for check in report)
    for check in report:
        logging.info("%s: %s: %s", "ok" if check["ok"] else "FAILED", check["check"], check["text"])
    text = json.dumps(report, indent=2) + "\n"
    io_utils.write_string_file(os.path.join(blessing.uri, REPORT), text)
    io_utils.write_string_file(os.path.join(blessing.uri, "INFRA_BLESSED" if is_blessed else "INFRA_NOT_BLESSED"), "")
    blessing.set_int_custom_property("blessed", int(is_blessed))


def read_report(blessing_uri: str) -> list[Check]:
    """Returns the checks that `write_blessing` has written."""
    with fileio.open(os.path.join(blessing_uri, REPORT), "r") as file:
        return list(json.load(file))


def _failed(name: str, text: str) -> Check:
    return {"check": name, "ok": False, "text": text}


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(str(error))}"
