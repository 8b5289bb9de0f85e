"""How the workers of one training find each other, and notice that one is lost."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator

import tensorflow as tf
from tensorflow.core.protobuf import tensorflow_server_pb2
from tensorflow.python.eager import context

from trainer.cluster import Cluster, WorkersError
from trainer.workers import ConnectedWorkers, Workers

_LOGGER = logging.getLogger(__name__)
# The job's name is that of a process alone, so that what the chief has made before stays where it is: with the local
# runner, Transform has used TensorFlow in the same process.
_JOB = "localhost"
_TASK = f"/job:{_JOB}/replica:0/task:{{}}"
_WATCH_SECONDS = 20.0  # between two questions whether the others are there
_ANSWER_SECONDS = 10.0


@contextlib.contextmanager
def connect(cluster: Cluster, wait_minutes: float) -> Iterator[Workers]:
    """Connects this process with the other workers, until all of them have come to the end of the block.

    Args:
        cluster: Who they are.
        wait_minutes: How long it waits for the others to start.

    Raises:
        WorkersError: This process cannot be a worker of the cluster, another one is not there in time, or is lost.
    """
    deadline = time.monotonic() + 60 * wait_minutes
    _listen(cluster)
    for rank in _others(cluster):
        while not _answers(cluster, rank):
            if time.monotonic() > deadline:
                raise WorkersError(
                    f"{_name(cluster, rank)} was not there within {wait_minutes:g} minutes: start it, or mend its "
                    "address in TF_CONFIG"
                )
            time.sleep(1)
    workers = ConnectedWorkers(cluster)
    is_over = threading.Event()
    silent: list[int] = []
    watch = threading.Thread(target=_watch, args=(cluster, is_over, silent), name="watch workers", daemon=True)
    try:
        watch.start()
        workers.wait()
        _LOGGER.info("%s is connected with %d others", _name(cluster, cluster.rank), workers.number - 1)
        yield workers
        workers.wait()  # nobody leaves before all are done
    except tf.errors.OpError as error:
        if "Collective ops is aborted" not in str(error):
            raise
        raise WorkersError(
            f"{_lost(cluster, silent)} was lost: its own log says why. Start all workers again: the training goes on "
            "from its last checkpoint"
        ) from None
    finally:
        is_over.set()
        watch.join()


def _listen(cluster: Cluster) -> None:
    """Makes this process a server that the others can reach, with the collective operations between them."""
    runtime = context.context()
    config = tf.compat.v1.ConfigProto()
    config.CopyFrom(runtime.config)
    config.experimental.collective_group_leader = _TASK.format(0)
    config.device_filters.append(f"/job:{_JOB}/task:{cluster.rank}")  # no operation goes to another worker
    server = tensorflow_server_pb2.ServerDef(
        cluster=tf.train.ClusterSpec({_JOB: list(cluster.addresses)}).as_cluster_def(),
        default_session_config=config,
        job_name=_JOB,
        task_index=cluster.rank,
        protocol="grpc",
    )
    try:
        runtime.enable_collective_ops(server)
        runtime.ensure_initialized()
    except tf.errors.OpError as error:
        raise WorkersError(
            f"{_name(cluster, cluster.rank)}, which this process is to be, cannot listen at its port: is it in use, by "
            f"a worker that still runs? ({error.message})"
        ) from None


def _answers(cluster: Cluster, rank: int) -> bool:
    host, _, port = cluster.addresses[rank].rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            return True
    except OSError:
        return False


def _watch(cluster: Cluster, is_over: threading.Event, silent: list[int]) -> None:
    """Ends the exchange when a worker has not answered for three times; what waits for a lost host waits for ever.

    Args:
        cluster: The workers.
        is_over: Set when there is nothing to watch any more.
        silent: Gets the ranks of the workers that do not answer.
    """
    failures = dict.fromkeys(_others(cluster), 0)
    while not is_over.wait(_WATCH_SECONDS):
        for rank in failures:
            try:
                task = _TASK.format(rank)
                context.context().check_collective_ops_peer_health(task, timeout_in_ms=int(1000 * _ANSWER_SECONDS))
                failures[rank] = 0
            except tf.errors.OpError:
                failures[rank] += 1
        silent += [rank for rank, times in failures.items() if times >= 3]
        if silent and not is_over.is_set():
            context.context().abort_collective_ops(tf.errors.UNAVAILABLE, "a worker does not answer")
            return


def _lost(cluster: Cluster, silent: list[int]) -> str:
    """Names the workers that do not answer, or that nobody can connect with any more."""
    for _ in range(10):  # one that has failed may still be about to end
        lost = silent or [rank for rank in _others(cluster) if not _answers(cluster, rank)]
        if lost:
            return ", ".join(_name(cluster, rank) for rank in lost)
        time.sleep(0.5)
    return "another worker"


def _others(cluster: Cluster) -> list[int]:
    return [rank for rank in range(len(cluster.addresses)) if rank != cluster.rank]


def _name(cluster: Cluster, rank: int) -> str:
    return f"worker {rank} of {len(cluster.addresses)} ({cluster.addresses[rank]})"
