"""Submits and schedules a package on a Kubeflow Pipelines server, through kfp's client."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import kfp
import kfp_server_api
import urllib3
import yaml

from pipeline.config import ConfigError, config_from_json, with_overrides

HOST, TOKEN, NAMESPACE, CA_FILE = "KFP_HOST", "KFP_TOKEN", "KFP_NAMESPACE", "KFP_CA_FILE"
SERVICE_ACCOUNT = "KFP_SERVICE_ACCOUNT"
REQUEST_TIMEOUT_SECONDS = 60.0
_MAX_FAILED_POLLS = 10
_FINAL = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}


class KubeflowError(RuntimeError):
    """A call that failed, or a run that did not succeed; the message says which, and what the server said."""


class Server:
    """A Kubeflow Pipelines server.

    Attributes:
        host: Its URL, which is also that of its UI.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ, timeout: float = REQUEST_TIMEOUT_SECONDS) -> None:
        """Connects.

        Args:
            environment: KFP_HOST is the server's URL. KFP_TOKEN is a bearer token, KFP_NAMESPACE the namespace where
                the server has several users, and KFP_CA_FILE the certificate authority of its TLS certificate, which
                is verified in any case.
            timeout: Seconds without an answer after which a request has failed.

        Raises:
            KubeflowError: There is no host, or it does not answer.
        """
        if HOST not in environment:
            raise KubeflowError(f"no server: set {HOST}, such as https://kubeflow.example.com/pipeline")
        self.host = environment[HOST].rstrip("/")
        self._namespace = environment.get(NAMESPACE)
        self._service_account = environment.get(SERVICE_ACCOUNT)
        if CA_FILE in environment and not pathlib.Path(environment[CA_FILE]).is_file():
            raise KubeflowError(f"{CA_FILE}: there is no file {environment[CA_FILE]}")
        with self._call("connecting"), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self._client = kfp.Client(
                host=self.host,
                # Any but kfp's default; where there is none, kfp asks the server, for half a minute if it fails.
                namespace=self._namespace or "single-user",
                existing_token=environment.get(TOKEN),
                ssl_ca_cert=environment.get(CA_FILE),
                verify_ssl=True,
            )
        self._client._context_setting["namespace"] = self._namespace or ""
        _limit_requests(self._client, timeout)

    def upload(self, package: pathlib.Path) -> tuple[str, str]:
        """Uploads a package as a version of the pipeline that it names; a package that is there already is taken.

        Args:
            package: The file that `ctr kubeflow compile` has written.

        Returns:
            The pipeline's id and the version's.
        """
        name = _read_package(package)["pipelineInfo"]["name"]
        version = f"{name}-{hashlib.sha256(package.read_bytes()).hexdigest()[:12]}"
        with self._call("looking for the pipeline"):  # kfp's get_pipeline_id looks for shared ones only
            known = self._client.list_pipelines(filter=_named(name), namespace=self._namespace).pipelines
        if known:
            pipeline_id = known[0].pipeline_id
        else:
            with self._call("uploading the pipeline"):
                pipeline_id = self._client.upload_pipeline(
                    str(package), pipeline_name=name, namespace=self._namespace
                ).pipeline_id
        with self._call("looking for the version"):
            found = self._client.list_pipeline_versions(pipeline_id, filter=_named(version)).pipeline_versions
        if found:
            return pipeline_id, found[0].pipeline_version_id
        with self._call("uploading the version"):
            uploaded = self._client.upload_pipeline_version(str(package), version, pipeline_id=pipeline_id)
        return pipeline_id, uploaded.pipeline_version_id

    def submit(self, package: pathlib.Path, experiment: str, parameters: Mapping[str, str]) -> str:
        """Starts a run.

        Args:
            package: See `upload`.
            experiment: Name of the experiment that the run is shown in; it is made where there is none.
            parameters: Values of pipeline parameters, as text.

        Returns:
            The run's id, which is TFX's run id, too.
        """
        values = read_parameters(package, parameters)
        pipeline_id, version_id = self.upload(package)
        experiment_id = self._experiment(experiment)
        with self._call("starting the run"):
            run = self._client.run_pipeline(
                experiment_id,
                job_name=f"{experiment} {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())}",
                params=values,
                pipeline_id=pipeline_id,
                version_id=version_id,
                service_account=self._service_account,
            )
        return str(run.run_id)

    def wait(self, run_id: str, timeout: float, show: Callable[[str, str], None], poll_seconds: float = 10.0) -> None:
        """Waits for a run's end. A server that does not answer for a while, as it is updated, say, is asked again.

        Args:
            run_id: The run's id.
            timeout: Seconds to wait at most.
            show: Called with each task that has changed its state, and the state.
            poll_seconds: Seconds between two questions.

        Raises:
            KubeflowError: The run has not succeeded, or not ended in time, or several questions in a row have had no
                answer. It is not stopped.
        """
        shown: dict[str, str] = {}
        deadline = time.monotonic() + timeout
        num_failed = 0
        while True:
            try:
                with self._call("asking for the run"):
                    run = self._client.get_run(run_id)
            except KubeflowError:
                num_failed += 1
                if num_failed == _MAX_FAILED_POLLS or time.monotonic() > deadline:
                    raise
                time.sleep(poll_seconds)
                continue
            num_failed = 0
            for task in getattr(run.run_details, "task_details", None) or []:
                if task.state and shown.get(task.display_name) != task.state:
                    shown[task.display_name] = task.state
                    show(task.display_name, task.state)
            if run.state in _FINAL:
                break
            if time.monotonic() > deadline:
                raise KubeflowError(f"the run has not ended within {timeout:.0f} s: {self.link(run_id)}")
            time.sleep(poll_seconds)
        if run.state != "SUCCEEDED":
            failed = ", ".join(name for name, state in shown.items() if state == "FAILED" and name != "root")
            message = f": {run.error.message}" if run.error and run.error.message else ""
            raise KubeflowError(f"the run has {run.state.lower()} {failed}{message}\n{self.link(run_id)}".strip())

    def schedule(
        self, package: pathlib.Path, experiment: str, cron: str, parameters: Mapping[str, str]
    ) -> tuple[str, list[str]]:
        """Starts a run again and again, never two at a time, and none for times that were missed.

        The pipeline's other recurring runs in the experiment are disabled: two would write to the same store and the
        same serving folder.

        Args:
            package: See `upload`.
            experiment: See `submit`; it is the recurring run's name, too.
            cron: When, in KFP's cron format of six fields; the first is the second.
            parameters: Values of pipeline parameters, as text.

        Returns:
            The recurring run's id, and the ids of those that were disabled for it.

        Raises:
            KubeflowError: Nothing is scheduled; or another one could not be disabled, and the message names it.
        """
        if len(cron.split()) != 6:
            raise KubeflowError(
                f"cron {cron!r}: write six fields, seconds first, such as '0 30 3 * * *' for 3:30 a day"
            )
        values = read_parameters(package, parameters)
        pipeline_id, version_id = self.upload(package)
        experiment_id = self._experiment(experiment)
        earlier = self._enabled(pipeline_id, experiment_id)
        with self._call("scheduling"):
            recurring = self._client.create_recurring_run(
                experiment_id,
                job_name=experiment,
                cron_expression=cron,
                max_concurrency=1,
                no_catchup=True,
                params=values,
                pipeline_id=pipeline_id,
                version_id=version_id,
                service_account=self._service_account,
            )
        # After it, so that whatever fails, one goes on.
        for index, other in enumerate(earlier):
            left = ", ".join(earlier[index:])
            with self._call(
                f"recurring run {recurring.recurring_run_id} is there, but disabling {left}, which would run beside it,"
            ):
                self._client.disable_recurring_run(other)
        return str(recurring.recurring_run_id), earlier

    def link(self, run_id: str) -> str:
        """Returns the page of a run in the UI."""
        return f"{self.host}/#/runs/details/{run_id}"

    def _enabled(self, pipeline_id: str, experiment_id: str) -> list[str]:
        """Returns the ids of a pipeline's recurring runs in an experiment that are enabled."""
        found: list[str] = []
        token = ""
        while True:
            with self._call("looking for recurring runs"):
                page = self._client.list_recurring_runs(page_token=token, page_size=100, experiment_id=experiment_id)
            for recurring in page.recurring_runs or []:
                version = recurring.pipeline_version_reference
                if recurring.status == "ENABLED" and version and version.pipeline_id == pipeline_id:
                    found.append(recurring.recurring_run_id)
            token = page.next_page_token
            if not token:
                return found

    def _experiment(self, name: str) -> str:
        with self._call("looking for the experiment"):
            return str(self._client.create_experiment(name, namespace=self._namespace).experiment_id)

    @contextlib.contextmanager
    def _call(self, what: str) -> Iterator[None]:
        """Turns whatever a call can end with into an error that names the call; kfp's own links are not shown."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except kfp_server_api.ApiException as error:
            hint = {401: f"; is {TOKEN} right?", 403: f"; is {NAMESPACE} right?"}.get(error.status, "")
            said = _message(error.body) or error.reason
            raise KubeflowError(f"{what} failed: {self.host} says {error.status}: {said}{hint}") from None
        except (urllib3.exceptions.HTTPError, TimeoutError, OSError, ValueError) as error:
            raise KubeflowError(f"{what} failed: {self.host}: {error}") from None


def read_parameters(package: pathlib.Path, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Returns values for a package's parameters, each of the type that the package says: KFP takes no other.

    They are checked as each container will check them: by the config that is in its arguments.

    Args:
        package: The file that `ctr kubeflow compile` has written.
        parameters: The values as they were written.

    Raises:
        KubeflowError: There is no such parameter, which KFP would ignore, or the value is not of its type, or not one
            that the config takes.
    """
    ir = _read_package(package)
    known = ir["root"].get("inputDefinitions", {}).get("parameters", {})
    values = {}
    for name in parameters:
        if name not in known:
            raise KubeflowError(f"the package has no parameter {name}; it has {', '.join(known)}")
    _check_values(ir, parameters)
    for name, text in parameters.items():
        kind = known[name]["parameterType"]
        try:
            values[name] = _READERS[kind](text)
        except (KeyError, ValueError):
            raise KubeflowError(f"the parameter {name} is a {kind}, and {text!r} is none") from None
    return values


def _check_values(ir: Mapping[str, Any], parameters: Mapping[str, str]) -> None:
    """Checks parameters by a container's arguments; but for the node's name all containers have the same.

    Raises:
        KubeflowError: The config does not take one.
    """
    executors = ir.get("deploymentSpec", {}).get("executors", {}).values()
    arguments: list[str] = next((executor["container"]["args"] for executor in executors), [])
    settings = [
        word.replace(_PLACEHOLDER.format(name), text)
        for name, text in parameters.items()
        for word in arguments
        if word.endswith("=" + _PLACEHOLDER.format(name))
    ]
    if settings:
        try:
            with_overrides(config_from_json(arguments[arguments.index("--config") + 1]), settings)
        except ConfigError as error:
            raise KubeflowError(str(error)) from None


def _read_package(package: pathlib.Path) -> dict[str, Any]:
    """Returns the pipeline in a package, which is the first of its documents."""
    try:
        ir: Any = next(yaml.safe_load_all(package.read_text(encoding="utf-8")), None)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())[:200]
    else:
        match ir:
            case {"root": dict(), "pipelineInfo": {"name": _}}:
                return dict(ir)
        why = "it has no pipelineInfo and root"
    raise KubeflowError(f"{package} is no package: {why}; make one with ctr kubeflow compile")


_PLACEHOLDER = "{{{{$.inputs.parameters['{}']}}}}"
# A setting that may be null is a text there, whatever it is in the config.
_READERS: dict[str, Callable[[str], Any]] = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": float,
    "BOOLEAN": {"true": True, "false": False}.__getitem__,
}


def _limit_requests(client: kfp.Client, timeout: float) -> None:
    """Gives each request a time limit: kfp's client has no setting for it, and would wait forever."""
    for api in vars(client).values():
        rest = getattr(getattr(api, "api_client", None), "rest_client", None)
        if rest is not None and not getattr(rest, "has_limit", False):
            rest.request, rest.has_limit = _with_limit(rest.request, timeout), True


def _with_limit(request: Callable[..., Any], timeout: float) -> Callable[..., Any]:
    def limited(*arguments: Any, **options: Any) -> Any:
        options["_request_timeout"] = options.get("_request_timeout") or (timeout, timeout)  # connect, read
        return request(*arguments, **options)

    return limited


def _named(name: str) -> str:
    # 1 is EQUALS, as kfp's client writes it.
    return json.dumps({"predicates": [{"operation": 1, "key": "display_name", "stringValue": name}]})


def _message(body: str | bytes | None) -> str:
    """Returns what the server said, from the JSON of a KFP error or as it is."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
    with contextlib.suppress(ValueError, AttributeError):
        parsed = json.loads(text)
        text = parsed.get("error_message") or parsed.get("message") or parsed.get("error") or text
    return " ".join(str(text).split())[:500]
