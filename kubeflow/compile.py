"""Compiles the pipeline to a package for Kubeflow Pipelines 2: a container for each node, in the local DAG's order.

The folder has no `__init__.py`; `pipeline/cli_kubeflow.py` loads it, see `docs/adr/0016-where-the-kubeflow-code-is.md`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from kfp import compiler, dsl
from tfx.dsl.compiler.compiler import Compiler

from pipeline.beam_check import folders_of_workers, setting_problems
from pipeline.config import ConfigError, PipelineConfig, config_to_json, with_overrides
from pipeline.kfp_outputs import KFP_OUTPUTS
from pipeline.metadata_store import connect
from pipeline.pipeline import create_pipeline

from .pods import configure

COMMAND = ("python", "-m", "pipeline.node")

_IMAGE = re.compile(r"[a-zA-Z0-9][\w.:/@-]*", re.ASCII)
_KIND = inspect.Parameter.POSITIONAL_OR_KEYWORD
_ARTIFACTS = {"system.Metrics": dsl.Metrics, "system.HTML": dsl.HTML}


def compile_package(config: PipelineConfig, image: str, out: pathlib.Path) -> None:
    """Writes the package of a pipeline.

    Args:
        config: The pipeline's settings.
        image: The image of all containers, with this project and the feature spec's module in it.
        out: The file, `*.yaml`.

    Raises:
        ConfigError: A setting does not fit the pipeline; the message says which.
    """
    nodes = {
        node.pipeline_node.node_info.id: tuple(node.pipeline_node.upstream_nodes)
        for node in Compiler().compile(create_pipeline(config)).nodes
    }
    if not _IMAGE.fullmatch(image):
        raise ConfigError(f"--image: {image!r} is no name of an image, such as registry.example.com/ctr:1")
    strange = [name for name in config.kubeflow.nodes if name not in nodes]
    if strange:
        raise ConfigError(f"kubeflow.nodes: this pipeline has no node {strange[0]}; it has {', '.join(nodes)}")
    parameters = _parameters(config)
    try:
        connect(config.kubeflow.metadata)
    except ValueError as error:
        raise ConfigError(f"kubeflow.metadata: {str(error).removeprefix('metadata: ')}") from None
    in_containers = container_config(config, image)
    problems = list(setting_problems(in_containers.beam, folders_of_workers(in_containers)))
    if problems:
        raise ConfigError("\n".join(problems))
    package = _make_pipeline(in_containers, image, nodes, parameters)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".compile-") as folder:
        temporary = os.path.join(folder, "pipeline.yaml")
        compiler.Compiler().compile(package, temporary)
        os.replace(temporary, out)


def container_config(config: PipelineConfig, image: str) -> PipelineConfig:
    """Returns the config as the containers get it.

    Relative folders are those below `kubeflow.root`. Where the config names none, that is also the folder that Beam's
    workers share, and the containers' image is also that of the workers on Dataflow.

    Args:
        config: The pipeline's settings.
        image: The image of all containers.
    """
    root, beam = config.kubeflow.root, config.beam
    if beam.runner == "dataflow":
        beam = dataclasses.replace(beam, image=beam.image or image)
    elif beam.runner != "local":
        beam = dataclasses.replace(beam, shared_folder=beam.shared_folder or root)
    return dataclasses.replace(
        config,
        beam=beam,
        runs_dir=os.path.join(root, config.runs_dir),
        log=dataclasses.replace(config.log, path=os.path.join(root, config.log.path)),
    )


def _config_json(config: PipelineConfig) -> str:
    """Returns the config in JSON, without what only the compilation uses."""
    tree = json.loads(config_to_json(config))
    del tree["kubeflow"]
    return json.dumps(tree, separators=(",", ":"))


def argo_name(name: str) -> str:
    """Returns a name in the characters that Argo takes: ImpressionLogExampleGen becomes impression-log-example-gen."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()).strip("-")


def kfp_name(name: str) -> str:
    """Returns a pipeline's name in KFP, which no other has: its own if KFP takes that, else one with a hash of it."""
    in_argo = argo_name(name)
    return name if in_argo == name else f"{in_argo}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _parameters(config: PipelineConfig) -> dict[str, tuple[str, Any]]:
    """Returns the pipeline's parameters: the key and the default of each.

    One that may be null is a text, whatever its default is: no number can say so, and an empty text can.
    """
    found: dict[str, tuple[str, Any]] = {}
    for key in config.kubeflow.parameters:
        value: Any = dataclasses.asdict(config)
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise ConfigError(f"kubeflow.parameters: there is no setting {key}")
            value = value[part]
        if isinstance(value, Mapping | list | tuple):
            raise ConfigError(f"kubeflow.parameters: {key} is not one value, and KFP's parameters are")
        if _may_be_null(config, key):
            value = "" if value is None else str(value)
        found[key.rpartition(".")[2]] = (key, value)
    return found


def _may_be_null(config: PipelineConfig, key: str) -> bool:
    try:
        with_overrides(config, [f"{key}="])
    except ConfigError:
        return False
    return True


def _make_pipeline(
    config: PipelineConfig,
    image: str,
    nodes: Mapping[str, tuple[str, ...]],
    parameters: Mapping[str, tuple[str, Any]],
) -> Any:
    components = {node: _make_component(config, image, node, parameters) for node in nodes}

    def pipeline(*values: Any) -> None:
        arguments = dict(zip(parameters, values, strict=True))
        tasks: dict[str, dsl.PipelineTask] = {}
        for node, upstream in nodes.items():
            tasks[node] = components[node](**arguments).after(*(tasks[name] for name in upstream))
            configure(tasks[node], node, config.kubeflow)

    _sign(
        pipeline,
        kfp_name(config.name),
        [
            inspect.Parameter(name, _KIND, default=default, annotation=type(default))
            for name, (_, default) in parameters.items()
        ],
    )
    return dsl.pipeline(pipeline, name=kfp_name(config.name))


def _make_component(config: PipelineConfig, image: str, node: str, parameters: Mapping[str, tuple[str, Any]]) -> Any:
    """Returns the component of one node, with all the pipeline's parameters: each node builds the same pipeline."""
    outputs = KFP_OUTPUTS.get(node, {})

    def component(*placeholders: Any) -> dsl.ContainerSpec:
        arguments = ["--node", node, "--run-id", dsl.PIPELINE_JOB_ID_PLACEHOLDER]
        arguments += ["--metadata", config.kubeflow.metadata, "--config", _config_json(config)]
        for (key, _), placeholder in zip(parameters.values(), placeholders, strict=False):
            arguments += ["--set", f"{key}={placeholder}"]
        if outputs:
            arguments += ["--executor-input", dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER]
        return dsl.ContainerSpec(image=image, command=list(COMMAND), args=arguments)

    _sign(
        component,
        argo_name(node).replace("-", "_"),
        [inspect.Parameter(name, _KIND, annotation=type(default)) for name, (_, default) in parameters.items()]
        + [inspect.Parameter(name, _KIND, annotation=dsl.Output[_ARTIFACTS[title]]) for name, title in outputs.items()],
    )
    return dsl.container_component(component)


def _sign(function: Callable[..., Any], name: str, parameters: list[inspect.Parameter]) -> None:
    """Gives a function the name and the parameters that kfp reads the component's interface from."""
    function.__name__ = name
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
