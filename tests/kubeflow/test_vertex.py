"""The package for Vertex AI."""

from __future__ import annotations

import pytest
import yaml

from pipeline.cli_kubeflow import load
from pipeline.config import ConfigError, load_config

VERTEX = ["kubeflow.root=/gcs/bucket/ctr", "kubeflow.metadata=grpc://metadata.example:8080"]


def test_a_package_for_vertex_is_one_document_without_anything_of_kubernetes(tmp_path):
    config = load("vertex").for_vertex(load_config(None, VERTEX))
    load("compile").compile_package(config, "registry.example/ctr:1", tmp_path / "pipeline.yaml")
    (ir,) = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())
    assert "/gcs/bucket/ctr/runs" in str(ir)


NOT_ON_VERTEX = {
    "a folder that is no bucket's": ("kubeflow.root=/mnt/ctr", "/gcs/BUCKET/FOLDER"),
    "a database with a password": ("kubeflow.metadata=mysql://ctr@host/metadata", "kubeflow.metadata: Vertex has no"),
    "a secret": ("kubeflow.secrets={KEY: name/key}", "kubeflow.secrets: Vertex has none"),
    "a toleration": ("kubeflow.nodes={Trainer: {tolerations: [{key: gpu}]}}", "kubeflow.nodes.Trainer.tolerations: V"),
}


@pytest.mark.parametrize(("override", "message"), NOT_ON_VERTEX.values(), ids=NOT_ON_VERTEX.keys())
def test_what_vertex_would_ignore_is_an_error(override, message):
    with pytest.raises(ConfigError, match=message):
        load("vertex").for_vertex(load_config(None, [*VERTEX, override]))
