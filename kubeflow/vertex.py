"""The package for Vertex AI Pipelines, which run KFP's IR and know nothing of Kubernetes."""

from __future__ import annotations

import dataclasses

from pipeline.config import ConfigError, PipelineConfig


def for_vertex(config: PipelineConfig) -> PipelineConfig:
    """Returns the config without a volume: Vertex mounts every bucket at `/gcs/BUCKET`.

    Args:
        config: The pipeline's settings.

    Raises:
        ConfigError: A setting is one that Vertex cannot keep; it would be ignored there.
    """
    settings = config.kubeflow
    if not settings.root.startswith("/gcs/"):
        raise ConfigError("kubeflow.root: on Vertex it is a folder of a bucket, /gcs/BUCKET/FOLDER")
    if not settings.metadata.startswith("grpc://"):
        raise ConfigError("kubeflow.metadata: Vertex has no Secret for a password; use a metadata service, grpc://...")
    for name in ("secrets", "config_maps", "image_pull_secrets"):
        if getattr(settings, name):
            raise ConfigError(f"kubeflow.{name}: Vertex has none")
    pods = {"pod": settings.pod, **{f"nodes.{node}": pod for node, pod in settings.nodes.items()}}
    for name, pod in pods.items():
        for key in ("node_selector", "tolerations", "timeout_seconds"):
            if getattr(pod, key):
                raise ConfigError(f"kubeflow.{name}.{key}: Vertex has none")
    return dataclasses.replace(config, kubeflow=dataclasses.replace(settings, pvc=None))
