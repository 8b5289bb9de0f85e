"""Which processes train together: what `TF_CONFIG` says."""

from __future__ import annotations

import dataclasses
import json
from typing import Any


class WorkersError(RuntimeError):
    """The workers of `TF_CONFIG` cannot train together; the message names the worker and the remedy."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes that train together.

    Attributes:
        addresses: `host:port` of each, the chief's first.
        rank: The place of this process among them. The chief, which writes the checkpoints and the model, has 0.
    """

    addresses: tuple[str, ...]
    rank: int


def read_cluster(text: str | None) -> Cluster | None:
    """Reads the value of `TF_CONFIG`, which Kubeflow's training operator sets.

    `{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}`: the chief is the one of
    `cluster.chief`, or the first worker where there is none.

    Args:
        text: The value; None or empty where it is not set.

    Returns:
        None where there is only one process.

    Raises:
        WorkersError: It is not what the operator writes.
    """
    if not text:
        return None
    try:
        config = json.loads(text)
    except ValueError as error:
        raise WorkersError(f"TF_CONFIG is not JSON ({error}): {text[:100]}") from None
    jobs, task = (_part(config, name) for name in ("cluster", "task"))
    if "ps" in jobs:
        raise WorkersError("TF_CONFIG has parameter servers, `cluster.ps`: leave them out")
    addresses = {job: _addresses(jobs.get(job, []), job) for job in ("chief", "worker")}
    if not addresses["worker"]:
        raise WorkersError('TF_CONFIG has no list `cluster.worker` of the workers\' addresses, as ["host:2222"]')
    if len(addresses["chief"]) > 1:
        raise WorkersError(f"TF_CONFIG has {len(addresses['chief'])} chiefs in `cluster.chief`: one is the most")
    job, index = task.get("type"), task.get("index")
    if not isinstance(job, str) or job not in addresses:
        raise WorkersError(f"TF_CONFIG's `task.type` is {job!r}: it must be chief or worker")
    if type(index) is not int or not 0 <= index < len(addresses[job]):
        raise WorkersError(
            f"TF_CONFIG's `task.index` is {index!r}: `cluster.{job}` has {len(addresses[job])} addresses, from 0"
        )
    everybody = (*addresses["chief"], *addresses["worker"])
    rank = index + (len(addresses["chief"]) if job == "worker" else 0)
    return Cluster(everybody, rank) if len(everybody) > 1 else None


def read_chiefs_cluster(text: str | None) -> Cluster | None:
    """Reads the value of `TF_CONFIG` for the process that runs the pipeline; see `read_cluster`.

    Raises:
        WorkersError: Also where this process is not the chief.
    """
    cluster = read_cluster(text)
    if cluster and cluster.rank:
        raise WorkersError("TF_CONFIG makes this process a worker, not the chief: start `python -m trainer.worker`")
    return cluster


def check_batch_size(batch_size: int, number: int) -> None:
    """Checks that a number of workers can divide each batch.

    Raises:
        WorkersError: They cannot.
    """
    if batch_size % number:
        raise WorkersError(
            f"batch_size is {batch_size}, which {number} workers cannot divide: give training, or its when_warm in a "
            "warm one, a multiple of their number"
        )


def _part(config: Any, name: str) -> dict[str, Any]:
    part = config.get(name, {}) if isinstance(config, dict) else None
    if not isinstance(part, dict):
        raise WorkersError(f"TF_CONFIG has no object `{name}`: {json.dumps(config)[:100]}")
    return part


def _addresses(values: Any, job: str) -> list[str]:
    if not isinstance(values, list):
        raise WorkersError(f"TF_CONFIG's `cluster.{job}` is {values!r}, which is no list of host:port")
    for value in values:
        host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
        if not (host and port.isdecimal()):
            raise WorkersError(f"TF_CONFIG's `cluster.{job}` has {value!r}, which is no host:port")
    return list(values)
