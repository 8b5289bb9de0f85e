"""What a Beam runner needs, looked at before a run, in a few seconds at most and without importing Beam."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import socket
from collections.abc import Iterator, Mapping

from pipeline.beam import BeamConfig
from pipeline.config import PipelineConfig

_CONNECT_SECONDS = 3


def folders_of_workers(config: PipelineConfig) -> dict[str, str]:
    """Returns what the workers of a pipeline's Beam steps read and write, by the names of the settings."""
    return {"log.path": config.log.path, "runs_dir": config.runs_dir}


def beam_problems(config: BeamConfig, folders: Mapping[str, str]) -> Iterator[str]:
    """Yields a sentence for each reason why the Beam steps cannot run from this machine.

    Args:
        config: Where they run.
        folders: What the workers read and write, by the names that the user knows it by.
    """
    yield from setting_problems(config, folders)
    if config.runner == "dataflow" and not _is_installed("google.cloud.storage"):
        yield "beam.runner: Dataflow needs Beam's packages for Google Cloud: pip install 'apache-beam[gcp]'"
    endpoints = {"job_endpoint": config.job_endpoint, "artifact_endpoint": config.artifact_endpoint}
    if config.runner == "portable" and all(map(_is_here, (config.job_endpoint, config.worker_pool))):
        endpoints["worker_pool"] = config.worker_pool  # of a cluster it is the address as its machines see it
    for name, address in endpoints.items():
        if address is not None:
            yield from _endpoint_problems(f"beam.{name}", address)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):  # of a package above it
        return False


def _is_here(address: str | None) -> bool:
    return address is not None and address.rpartition(":")[0] in ("localhost", "127.0.0.1")


def _endpoint_problems(name: str, address: str) -> Iterator[str]:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        cause = "no answer" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or str(error)
        yield f"{name}: nothing listens at {address} ({cause}): start it, or correct the address; see docs/beam.md"


def setting_problems(config: BeamConfig, folders: Mapping[str, str]) -> Iterator[str]:
    """Yields those of them that the settings alone tell, wherever the run will start."""
    yield from _missing(config)
    yield from _outside(config, folders)


def _missing(config: BeamConfig) -> Iterator[str]:
    if config.runner == "local":
        return
    if config.runner == "dataflow":
        for name in ("project", "region", "temp_location"):
            if getattr(config, name) is None:
                yield f"beam.{name} is not set: Dataflow needs one"
        if config.image is None:
            yield "beam.image is not set: name an image of kubeflow/Dockerfile, as the workers need this project"
    else:
        if config.job_endpoint is None:
            yield f"beam.job_endpoint is not set: name the HOST:PORT of the Beam job server of {config.runner}"
        if config.worker_pool is None and config.image is None:
            yield (
                "beam.worker_pool is not set: name the HOST:PORT where each machine of the cluster has a worker pool, "
                "or beam.image where it is to start workers with Docker, either of kubeflow/Dockerfile"
            )
    if config.shared_folder is None:
        yield (
            "beam.shared_folder is not set: other machines read the log and write to runs_dir, so name the folder that "
            "all of them mount at the same path as this one"
        )


def _outside(config: BeamConfig, folders: Mapping[str, str]) -> Iterator[str]:
    if config.shared_folder is None:
        return
    shared = pathlib.Path(os.path.abspath(config.shared_folder))
    for name, folder in folders.items():
        path = pathlib.Path(folder).resolve()  # as the workers are told
        if not path.is_relative_to(shared):
            yield f"{name}: the Beam workers do not see {path}: put it into beam.shared_folder, which is {shared}"
