"""What a task's pod gets: resources, retries, and what of Kubernetes the KFP package carries beside its IR."""

from __future__ import annotations

import dataclasses
from typing import Any

from kfp import dsl

from pipeline.kubeflow_config import KubeflowConfig, PodConfig, Toleration


def configure(task: dsl.PipelineTask, node: str, settings: KubeflowConfig) -> None:
    """Gives a task what its node's container is to get.

    Args:
        task: The task; changed in place.
        node: The node's id.
        settings: The settings of all pods.
    """
    pod = settings.pod_of(node)
    task.set_display_name(node)
    task.set_caching_options(False)  # TFX asks its own cache, which knows the log's days and our sources
    if pod.retries:
        task.set_retry(pod.retries, f"{pod.backoff_seconds}s", pod.backoff_factor)
    for value, set_value in (
        (pod.cpu_request, task.set_cpu_request),
        (pod.cpu_limit, task.set_cpu_limit),
        (pod.memory_request, task.set_memory_request),
        (pod.memory_limit, task.set_memory_limit),
    ):
        if value is not None:
            set_value(value)
    if pod.gpus:
        task.set_accelerator_type(pod.gpu_type)
        task.set_accelerator_limit(pod.gpus)
    for name, value in settings.environment.items():
        task.set_env_variable(name, value)
    kubernetes = kubernetes_config(pod, settings)
    if kubernetes:
        task.platform_config["kubernetes"] = kubernetes


def kubernetes_config(pod: PodConfig, settings: KubeflowConfig) -> dict[str, Any]:
    """Returns a KubernetesExecutorConfig in protobuf's JSON, as kfp-kubernetes 2.16 writes it.

    It is written by hand because kfp-kubernetes 1.0, the only one that goes with kfp 2.5, cannot write half of it. Some
    names stand twice, as kfp-kubernetes writes them: older servers read the plain one.
    """
    config: dict[str, Any] = {
        "pvcMount": [
            {"constant": settings.pvc, "mountPath": settings.root, "pvcNameParameter": _constant(settings.pvc)}
        ]
        if settings.pvc
        else [],
        "secretAsEnv": [
            {
                "secretName": secret,
                "secretNameParameter": _constant(secret),
                "keyToEnv": [{"secretKey": key, "envVar": variable}],
                "optional": False,
            }
            for variable, (secret, key) in _split(settings.secrets).items()
        ],
        "configMapAsEnv": [
            {
                "configMapName": config_map,
                "configMapNameParameter": _constant(config_map),
                "keyToEnv": [{"configMapKey": key, "envVar": variable}],
                "optional": False,
            }
            for variable, (config_map, key) in _split(settings.config_maps).items()
        ],
        "imagePullSecret": [
            {"secretName": secret, "secretNameParameter": _constant(secret)} for secret in settings.image_pull_secrets
        ],
        "nodeSelector": {"labels": dict(pod.node_selector)} if pod.node_selector else None,
        "tolerations": [_toleration(toleration) for toleration in pod.tolerations or ()],
        "activeDeadlineSeconds": None if pod.timeout_seconds is None else str(pod.timeout_seconds),  # int64 in JSON
    }
    return {key: value for key, value in config.items() if value}


def _constant(name: str) -> dict[str, Any]:
    return {"runtimeValue": {"constant": name}}


def _split(references: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Returns the name and the key of each variable's reference."""
    split = {variable: reference.partition("/") for variable, reference in references.items()}
    return {variable: (name, key) for variable, (name, _, key) in split.items()}


def _toleration(toleration: Toleration) -> dict[str, Any]:
    given = {name: value for name, value in dataclasses.asdict(toleration).items() if value is not None}
    seconds = given.pop("toleration_seconds", None)
    return given if seconds is None else given | {"tolerationSeconds": str(seconds)}
