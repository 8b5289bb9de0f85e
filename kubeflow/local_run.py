"""Runs a compiled package with kfp's DockerRunner on this machine's Docker engine: what `make kubeflow-local` does.

kfp.local runs a task once, whatever its retry policy. So the retries are made here, as many as the package says but
without its wait between them: a container that fails or is killed is followed by another one with the same command, as
on a cluster. A container gets the root as a bind mount, a read-only root file system and an unprivileged user.
"""

from __future__ import annotations

import argparse
import logging
import os
import pathlib
import subprocess
import sys
import threading
import time
from typing import Any

import docker
import yaml
from kfp import components, local
from kfp.local import docker_task_handler

MOUNT = "/mnt/ctr"
_LOGGER = logging.getLogger("local_run")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=pathlib.Path)
    parser.add_argument(
        "--root", type=pathlib.Path, required=True, help=f"the folder that is {MOUNT} in the containers"
    )
    parser.add_argument("--kill", metavar="TASK", help="kill this task's first container in its third epoch, as a test")
    options = parser.parse_args()

    os.umask(0)  # the containers' user is another one than this process's
    root = options.root.resolve()
    (root / "kfp").mkdir(exist_ok=True)  # or Docker makes it, for root alone
    retries = _retries(options.package)
    attempts: dict[str, list[int]] = {}
    resumed: list[str] = []
    docker_task_handler.run_docker_container = _with_retries(retries, attempts, resumed, options.kill)
    local.init(
        local.DockerRunner(
            mounts=[docker.types.Mount(MOUNT, str(root), type="bind")],
            network_mode="host",
            read_only=True,
            tmpfs={"/tmp": ""},
            user="1000:0",
        ),
        pipeline_root=str(root / "kfp"),
    )
    start = time.monotonic()
    components.load_component_from_file(str(options.package))()
    print(f"attempts: {attempts}; {'; '.join(resumed)}; {time.monotonic() - start:.0f} s")
    if options.kill and attempts.get(options.kill, [])[:1] != [137]:
        sys.exit(f"the first container of {options.kill} was not killed: {attempts}")
    if options.kill and not resumed:
        sys.exit(f"the second container of {options.kill} has begun anew")
    failed = {task: codes for task, codes in attempts.items() if codes[-1] != 0}
    if failed:
        sys.exit(f"failed: {failed}")


def _retries(package: pathlib.Path) -> dict[str, int]:
    """Returns how often each node may be repeated, by the node's id."""
    ir = next(yaml.safe_load_all(package.read_text(encoding="utf-8")))
    return {
        task["taskInfo"]["name"]: int(task.get("retryPolicy", {}).get("maxRetryCount", 0))
        for task in ir["root"]["dag"]["tasks"].values()
    }


def _with_retries(
    retries: dict[str, int], attempts: dict[str, list[int]], resumed: list[str], killed: str | None
) -> Any:
    """Returns what runs a container in the place of kfp's own: with retries, and with the true exit status.

    kfp removes a container at its end, and then takes it for a success where it was faster than the question.

    Args:
        retries: How often each node may be repeated.
        attempts: Is filled with the exit statuses of each node's containers.
        resumed: Is filled with the lines that say that a training goes on.
        killed: The node whose first container is killed.
    """

    def run(client: docker.DockerClient, image: str, command: list[str], volumes: Any, **arguments: Any) -> int:
        node = command[command.index("--node") + 1]
        codes = attempts.setdefault(node, [])
        for _ in range(retries[node] + 1):
            start = time.monotonic()
            container = client.containers.run(image, command, detach=True, volumes=volumes, **arguments)
            try:
                if node == killed and not codes:
                    threading.Thread(target=_kill_while_it_trains, args=(container,), daemon=True).start()
                for line in container.logs(stream=True):
                    print(line.decode(errors="replace"), end="")
                    if b"resumed after" in line:
                        resumed.append(line.decode(errors="replace").strip())
                codes.append(int(container.wait()["StatusCode"]))
            finally:
                container.remove(force=True)
            print(f"{node}: exit status {codes[-1]} after {time.monotonic() - start:.1f} s", flush=True)
            if codes[-1] == 0:
                break
        return codes[-1]

    return run


def _kill_while_it_trains(container: Any) -> None:
    for line in container.logs(stream=True, follow=True):
        if b"epoch 2/" in line:
            subprocess.run(["docker", "kill", container.id], check=True, stdout=subprocess.DEVNULL)
            print("docker kill", container.id, flush=True)
            return


if __name__ == "__main__":
    main()
