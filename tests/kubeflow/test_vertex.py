"""The package for Vertex AI."""

from __future__ import annotations

import pytest
import yaml
from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import KubeflowV2DagRunner, KubeflowV2DagRunnerConfig

from pipeline.cli_kubeflow import load
from pipeline.config import ConfigError, load_config
from pipeline.pipeline import create_pipeline

VERTEX = ["kubeflow.root=/gcs/bucket/ctr", "kubeflow.metadata=grpc://metadata.example:8080"]


def test_a_package_for_vertex_is_one_document_without_anything_of_kubernetes(tmp_path):
    config = load("vertex").for_vertex(load_config(None, VERTEX))
    load("compile").compile_package(config, "registry.example/ctr:1", tmp_path / "pipeline.yaml")
    (ir,) = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())
    assert "/gcs/bucket/ctr/runs" in str(ir)


def test_tfxs_own_runner_still_refuses_the_pipeline(tmp_path):
    """Where it does not any more, think again about kubeflow/README.md's section on Vertex AI."""
    runner = KubeflowV2DagRunner(KubeflowV2DagRunnerConfig(), str(tmp_path), "pipeline.json")
    with pytest.raises(TypeError, match=r"resolver policy.*BaselineStrategy"):
        runner.run(create_pipeline(load_config(None)))


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
