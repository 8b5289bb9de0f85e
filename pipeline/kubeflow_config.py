"""What Kubeflow Pipelines needs to know beside the pipeline itself: where things are, and what each container gets."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from trainer.config import STRICT, Positive

# A number of cores or of bytes as Kubernetes writes it: 500m, 2, 1.5, 512Mi, 16G.
Cpu = Annotated[str, Field(pattern=r"^([0-9]+m|[0-9]+(\.[0-9]+)?)$")]
Memory = Annotated[str, Field(pattern=r"^[0-9]+(K|Ki|M|Mi|G|Gi|T|Ti)?$")]
# A key of a Secret or a ConfigMap, as `name/key`.
Reference = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9._-]+$")]
# Settings that decide which nodes there are, or where their outputs are: a submission cannot change these, nor a group
# of them, `beam`.
FIXED = (
    *("name", "features", "schema_file", "runs_dir", "log.path"),
    *("tuner.trials", "training.warm_start", "transform.analyzer_cache"),
)


@dataclass(frozen=True, config=STRICT)
class Toleration:
    """A taint that a pod may be scheduled beside; the fields are Kubernetes'."""

    key: str
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None


@dataclass(frozen=True, config=STRICT)
class PodConfig:
    """What one node's container gets. Null is: as for all nodes, and there, nothing is asked for.

    Attributes:
        cpu_request: Cores that the node of the cluster must have free.
        cpu_limit: Cores at most.
        memory_request: Memory that it must have free, in bytes with a suffix.
        memory_limit: Memory at most; a container that takes more is killed.
        gpus: How many accelerators.
        gpu_type: Their resource name.
        node_selector: Labels that the node of the cluster must have.
        tolerations: Taints that it may have.
        retries: How many more attempts a failed one is followed by.
        backoff_seconds: Seconds before the first retry.
        backoff_factor: By what the wait grows with each further one.
        timeout_seconds: Seconds after which the pod is ended.
    """

    cpu_request: Cpu | None = None
    cpu_limit: Cpu | None = None
    memory_request: Memory | None = None
    memory_limit: Memory | None = None
    gpus: Annotated[int, Field(ge=0)] | None = None
    gpu_type: str | None = None
    node_selector: dict[str, str] | None = None
    tolerations: tuple[Toleration, ...] | None = None
    retries: Annotated[int, Field(ge=0)] | None = None
    backoff_seconds: Positive | None = None
    backoff_factor: Annotated[float, Field(ge=1)] | None = None
    timeout_seconds: Positive | None = None


_DEFAULT_POD = PodConfig(gpu_type="nvidia.com/gpu", retries=2, backoff_seconds=30, backoff_factor=2.0)


@dataclass(frozen=True, config=STRICT)
class KubeflowConfig:
    """The pipeline on Kubeflow Pipelines.

    Attributes:
        root: Folder of every container below which the config's relative `log.path` and `runs_dir` are.
        pvc: The persistent volume claim that is mounted there; null where the image or the cluster sees to it.
        metadata: The ML Metadata store: grpc://HOST:PORT, mysql://USER@HOST:PORT/DATABASE or sqlite:///FILE. MySQL's
            password is the environment variable METADATA_PASSWORD.
        parameters: Settings that a submission may change, each a pipeline parameter named by the last part of its key.
        environment: Environment variables with their values. No secrets here: they would be in the package.
        secrets: Environment variables from Secrets, each as `secret/key`.
        config_maps: Environment variables from ConfigMaps, each as `config map/key`.
        image_pull_secrets: Secrets to pull the image with.
        pod: What every node's container gets.
        nodes: What single nodes' containers get instead, by the node's id, such as Trainer.
    """

    root: Annotated[str, Field(pattern=r"^/")] = "/mnt/ctr"
    pvc: str | None = "ctr"
    metadata: Annotated[str, Field(pattern=r"^(grpc|mysql|sqlite)://")] = "grpc://metadata-grpc-service.kubeflow:8080"
    parameters: tuple[str, ...] = (
        "log.as_of",
        "log.train_days",
        "training.max_epochs",
        "training.max_steps",
        "evaluation.min_auc",
        "evaluation.max_auc_drop",
        "evaluation.max_log_loss",
    )
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    secrets: dict[str, Reference] = dataclasses.field(default_factory=dict)
    config_maps: dict[str, Reference] = dataclasses.field(default_factory=dict)
    image_pull_secrets: tuple[str, ...] = ()
    pod: PodConfig = PodConfig()
    nodes: dict[str, PodConfig] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in self.parameters:
            if key.startswith(("beam.", "kubeflow.")) or key in FIXED:
                raise ValueError(f"parameters: {key} is compiled into the package, and no submission can change it")
        names = [key.rpartition(".")[2] for key in self.parameters]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"parameters: two of them would be named {name}")
        for node in ("", *self.nodes):
            self._check_limits(f"nodes.{node}" if node else "pod", self.pod_of(node))

    def pod_of(self, node_id: str) -> PodConfig:
        """Returns what a node's container gets."""
        merged = _DEFAULT_POD
        for layer in (self.pod, self.nodes.get(node_id, PodConfig())):
            given = {field.name: getattr(layer, field.name) for field in dataclasses.fields(layer)}
            merged = dataclasses.replace(merged, **{name: value for name, value in given.items() if value is not None})
        return merged

    def _check_limits(self, key: str, pod: PodConfig) -> None:
        """Raises an error where a pod asks for more than it may have, which no cluster would start."""
        for kind in ("cpu", "memory"):
            request, limit = getattr(pod, f"{kind}_request"), getattr(pod, f"{kind}_limit")
            if request and limit and _quantity(request) > _quantity(limit):
                raise ValueError(f"{key}: {kind}_request {request} is more than {kind}_limit {limit}")


def _quantity(text: str) -> float:
    """Returns a number as Kubernetes writes it: of cores, or of bytes."""
    number = text.rstrip("mKMGTi")
    suffix = text.removeprefix(number)
    if suffix == "m":
        return float(number) / 1000
    base = 1024.0 if suffix.endswith("i") else 1000.0
    return float(number) * base ** " KMGT".index(suffix[:1] or " ")
