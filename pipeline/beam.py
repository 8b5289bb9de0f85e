"""Apache Beam: where ingestion, statistics, Transform and the evaluation run, and the flags that make it so.

This module imports neither Beam nor TFX. What each runner needs, and how a cluster gets it: `docs/beam.md`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from trainer.config import STRICT, Positive

# Beam's direct runner by its full name: 2.77 would try Prism, which it has to download; 2.61 does not know the short
# name. The image is never used; naming one keeps TFX from building a source distribution of itself for every executor.
LOCAL_BEAM_ARGS = (
    "--runner=apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner",
    "--sdk_container_image=unused",
)

Address = Annotated[str, Field(pattern=r"^[^\s:/]+:[0-9]{1,5}$")]
Bucket = Annotated[str, Field(pattern=r"^gs://.+")]

# How long a job may take. To Beam it is how long to wait for an answer; but one of its questions is answered when the
# job ends, so that with its default, a minute in Beam 2.61, no job may take longer.
_JOB_SECONDS = 7 * 24 * 3600
# All three are PortableRunner, which talks to a Beam job server.
_RUNNERS = {"flink": "FlinkRunner", "spark": "SparkRunner", "portable": "PortableRunner"}
_APPLIES_TO = {
    "workers": ("local", "flink", "dataflow"),
    "job_endpoint": tuple(_RUNNERS),
    "artifact_endpoint": tuple(_RUNNERS),
    "worker_pool": tuple(_RUNNERS),
    "image": (*_RUNNERS, "dataflow"),
    "shared_folder": (*_RUNNERS, "dataflow"),
    **dict.fromkeys(("project", "region", "temp_location", "staging_location"), ("dataflow",)),
}


@dataclass(frozen=True, config=STRICT)
class BeamConfig:
    """Where the Beam steps run.

    Attributes:
        runner: `local`, in processes of this machine; `flink` or `spark`, through the cluster's Beam job server;
            `dataflow`; or `portable`, any other Beam job server.
        workers: How many processes share the work: on this machine with `local`, where 1 is the run's own process; at
            most, with `dataflow`; Flink's parallelism. Null for 1 locally, and elsewhere for what the cluster does.
        job_endpoint: HOST:PORT of the Beam job server.
        artifact_endpoint: HOST:PORT where it takes what workers are sent; null for what it says, which may be its name
            for itself.
        worker_pool: HOST:PORT where the cluster's machines have Beam's worker pool, such as `localhost:50000` for a
            container beside each Flink task manager; null where they start a container of `image` with Docker.
        image: The image of workers that the runner starts, with this project and the feature spec's module in it. It
            has to mount `shared_folder` by itself.
        shared_folder: The folder that this machine and all workers have, with the same files at the same path: it holds
            `log.path` and `runs_dir`.
        project: Google Cloud's project.
        region: Its region.
        temp_location: A folder in a bucket for temporary files.
        staging_location: A folder in a bucket for what the workers are sent; null for `temp_location`.
        args: More flags for Beam, which come last and so have the last word.
    """

    runner: Literal["local", "flink", "spark", "dataflow", "portable"] = "local"
    workers: Positive | None = None
    job_endpoint: Address | None = None
    artifact_endpoint: Address | None = None
    worker_pool: Address | None = None
    image: str | None = None
    shared_folder: Annotated[str, Field(pattern=r"^/")] | None = None
    project: str | None = None
    region: str | None = None
    temp_location: Bucket | None = None
    staging_location: Bucket | None = None
    args: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, runners in _APPLIES_TO.items():
            if getattr(self, name) is not None and self.runner not in runners:
                raise ValueError(
                    f"{name} is for the runner {' or '.join(runners)}, and runner is {self.runner}: leave it out"
                )


def beam_args(config: BeamConfig) -> list[str]:
    """Returns the flags that Beam and TFX take.

    Args:
        config: The settings; `beam_check` finds nothing missing that the runner needs.
    """
    if config.runner == "local":
        flags = list(LOCAL_BEAM_ARGS)
        if (config.workers or 1) > 1:
            flags += ["--direct_running_mode=multi_processing", f"--direct_num_workers={config.workers}"]
    elif config.runner == "dataflow":
        flags = ["--runner=DataflowRunner", "--sdk_location=container"]
        flags += _flags(
            project=config.project,
            region=config.region,
            temp_location=config.temp_location,
            staging_location=config.staging_location or config.temp_location,
            sdk_container_image=config.image,
            max_num_workers=config.workers,
        )
    else:
        flags = [f"--runner={_RUNNERS[config.runner]}"]
        flags += _flags(
            job_endpoint=config.job_endpoint,
            artifact_endpoint=config.artifact_endpoint,
            job_server_timeout=_JOB_SECONDS,
            environment_type="EXTERNAL" if config.worker_pool else "DOCKER",
            environment_config=config.worker_pool or config.image,
            parallelism=config.workers,
            # As above: where there is one, the pool has started from it already.
            sdk_container_image=config.image or "unused",
        )
    return [*flags, *config.args]


def _flags(**values: str | int | None) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items() if value is not None]
