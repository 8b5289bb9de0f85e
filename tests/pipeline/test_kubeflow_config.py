from __future__ import annotations

import pytest

from pipeline.config import ConfigError, load_config, with_overrides
from pipeline.kubeflow_config import KubeflowConfig, PodConfig, Toleration


def test_a_nodes_settings_go_before_all_pods_and_these_before_the_defaults():
    gpu = Toleration(key="gpu", operator="Exists")
    settings = KubeflowConfig(
        pod=PodConfig(cpu_limit="2", memory_limit="4Gi", tolerations=(gpu,)),
        nodes={"Trainer": PodConfig(cpu_limit="8", gpus=1, retries=0)},
    )
    trainer, transform = settings.pod_of("Trainer"), settings.pod_of("Transform")
    assert (trainer.cpu_limit, trainer.memory_limit, trainer.gpus, trainer.retries) == ("8", "4Gi", 1, 0)
    assert trainer.gpu_type == "nvidia.com/gpu"
    assert (transform.cpu_limit, transform.gpus, transform.retries, transform.backoff_seconds) == ("2", None, 2, 30)
    assert trainer.tolerations == transform.tolerations == (gpu,)


WRONG = {
    "a relative root": ("kubeflow.root=mnt", "kubeflow.root must be text that matches"),
    "another store": ("kubeflow.metadata=http://x", "kubeflow.metadata must be text that matches"),
    "memory with a wrong suffix": ("kubeflow.pod.memory_limit=4GB", "kubeflow.pod.memory_limit must be text that"),
    "an unknown key": ("kubeflow.pod.cpus=4", "unknown key kubeflow.pod.cpus: "),
    "a secret without a key": ("kubeflow.secrets={PASSWORD: mysql}", "kubeflow.secrets.PASSWORD must be text that"),
    "a fixed parameter": ("kubeflow.parameters=[tuner.trials]", "tuner.trials is compiled into the package"),
    "a parameter that adds a node": (
        "kubeflow.parameters=[transform.analyzer_cache]",
        "transform.analyzer_cache is compiled into the package",
    ),
    "more cores than there may be": (
        "kubeflow.pod={cpu_request: '1.5', cpu_limit: 500m}",
        "kubeflow: pod: cpu_request 1.5 is more than cpu_limit 500m",
    ),
    "more memory than one node may have": (
        "kubeflow={pod: {memory_request: 2G}, nodes: {Trainer: {memory_limit: 1900Mi}}}",
        "kubeflow: nodes.Trainer: memory_request 2G is more than memory_limit 1900Mi",
    ),
    "two of a name": ("kubeflow.parameters=[training.seed, tuner.seed]", "two of them would be named seed"),
}


@pytest.mark.parametrize(("override", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_setting_is_an_error(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])


def test_a_request_may_be_as_much_as_the_limit():
    pod = load_config(
        None, ["kubeflow.pod={memory_request: 2G, memory_limit: 2000M, cpu_request: 1000m, cpu_limit: '1'}"]
    )
    assert pod.kubeflow.pod.memory_limit == "2000M"


def test_overrides_on_a_config_are_those_on_its_file():
    overrides = ["log.as_of=2026-11-24", "evaluation.max_log_loss=", "training.max_epochs=2"]
    assert with_overrides(load_config(None), overrides) == load_config(None, overrides)
    with pytest.raises(ConfigError, match=r"unknown key training\.epochs"):
        with_overrides(load_config(None), ["training.epochs=2"])
