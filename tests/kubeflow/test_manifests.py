"""The manifests, read with the models of the Kubernetes client; offline."""

from __future__ import annotations

import contextlib
import datetime
import re

import pytest
import yaml
from kubernetes import client

from pipeline.cli_kubeflow import FOLDER
from pipeline.config import load_config

MANIFESTS = FOLDER / "manifests"
MODELS = {
    "PersistentVolume": "V1PersistentVolume",
    "PersistentVolumeClaim": "V1PersistentVolumeClaim",
    "Job": "V1Job",
    "ServiceAccount": "V1ServiceAccount",
    "Role": "V1Role",
    "RoleBinding": "V1RoleBinding",
    "ConfigMap": "V1ConfigMap",
    "NetworkPolicy": "V1NetworkPolicy",
    "Deployment": "V1Deployment",
    "StatefulSet": "V1StatefulSet",
    "Service": "V1Service",
    "PodDisruptionBudget": "V1PodDisruptionBudget",
}
# KServe's v1beta1 API (https://kserve.github.io/website/docs/reference/crd-api: ComponentExtensionSpec, ModelSpec): a
# predictor is a pod's spec and its model a container, with these fields beside Kubernetes' own.
OF_A_PREDICTOR = {
    **dict.fromkeys(("minReplicas", "maxReplicas", "scaleTarget", "timeout", "containerConcurrency"), "int"),
    "canaryTrafficPercent": "int",
    "scaleMetric": "str",
    **dict.fromkeys(("labels", "annotations"), "dict(str, str)"),
    "deploymentStrategy": "V1DeploymentStrategy",
}
OF_A_MODEL = {"storageUri": "str", "protocolVersion": "str", "runtime": "str", "runtimeVersion": "str"}
SCALARS = {"str": str, "int": int, "bool": bool, "float": float, "datetime": datetime.datetime}


def _documents():
    return [
        (f"{file.relative_to(MANIFESTS)}: {document['kind']}", file, document)
        for file in sorted(MANIFESTS.rglob("*.yaml"))
        for document in yaml.safe_load_all(file.read_text())
    ]


def check(value, kind, path):
    """Raises an AssertionError where a value is not of one of the client's types, with no unknown or missing field."""
    if kind == "object":
        return
    if match := re.fullmatch(r"list\[(.+)\]", kind):
        assert isinstance(value, list), f"{path} is no list"
        for index, item in enumerate(value):
            check(item, match[1], f"{path}[{index}]")
    elif match := re.fullmatch(r"dict\(str, (.+)\)", kind):
        assert isinstance(value, dict), f"{path} is no mapping"
        for key, item in value.items():
            check(item, match[1], f"{path}.{key}")
    elif kind in SCALARS:
        assert isinstance(value, SCALARS[kind]), f"{path} is {value!r}, not a {kind}"
        assert kind == "bool" or not isinstance(value, bool), f"{path} is a bool, not a {kind}"
    else:
        model = getattr(client, kind)
        names = {json_name: name for name, json_name in model.attribute_map.items()}
        assert isinstance(value, dict), f"{path} is no {kind}"
        assert set(value) <= set(names), f"{path} has unknown fields {set(value) - set(names)}"
        for json_name, item in value.items():
            check(item, model.openapi_types[names[json_name]], f"{path}.{json_name}")
        model(**{names[json_name]: item for json_name, item in value.items()})  # raises where one is missing


def check_inference_service(document):
    """Raises an AssertionError where an InferenceService with one model has a field that KServe does not know."""

    def check_extended(fields, own, kind, path):
        for name in own.keys() & fields.keys():
            check(fields[name], own[name], f"{path}.{name}")
        with contextlib.suppress(ValueError):  # the containers and the name are KServe's to fill in
            check({name: value for name, value in fields.items() if name not in own}, kind, path)

    assert document.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert document["apiVersion"] == "serving.kserve.io/v1beta1"
    check(document["metadata"], "V1ObjectMeta", "metadata")
    assert document["spec"].keys() == {"predictor"}
    predictor = dict(document["spec"]["predictor"])
    model = dict(predictor.pop("model"))
    model_format = model.pop("modelFormat")
    assert "name" in model_format
    assert model_format.keys() <= {"name", "version"}
    check(model_format, "dict(str, str)", "modelFormat")
    check_extended(predictor, OF_A_PREDICTOR, "V1PodSpec", "predictor")
    check_extended(model, OF_A_MODEL, "V1Container", "model")


@pytest.mark.parametrize(("file", "document"), [case[1:] for case in _documents()], ids=[c[0] for c in _documents()])
def test_every_field_is_one_of_kubernetes(file, document):
    if document["kind"] == "Kustomization":
        assert document["apiVersion"] == "kustomize.config.k8s.io/v1beta1"
        return
    if document["kind"] == "InferenceService":
        check_inference_service(document)
        return
    kustomization = yaml.safe_load((file.parent / "kustomization.yaml").read_text())
    # A patch leaves out what the base has.
    is_patch = file.name in [patch["path"] for patch in kustomization.get("patches", [])]
    with contextlib.suppress(*[ValueError] * is_patch):
        check(document, MODELS[document["kind"]], document["kind"])


def test_the_check_finds_a_misspelt_field_a_wrong_type_and_a_missing_field():
    for wrong in ({"spec": {"replica": 1}}, {"spec": {"replicas": "2"}}):
        with pytest.raises(AssertionError, match="spec"):
            check(wrong, "V1Deployment", "Deployment")
    with pytest.raises(ValueError, match="selector"):
        check({"spec": {"template": {}}}, "V1Deployment", "Deployment")


@pytest.mark.parametrize(
    ("where", "wrong"),
    [
        (("spec", "predictor"), {"minReplica": 2}),
        (("spec", "predictor"), {"maxReplicas": "2"}),
        (("spec", "predictor", "model"), {"storageURI": "pvc://ctr"}),
        (("spec", "predictor", "model"), {"resources": {"limit": {}}}),
        (("spec", "predictor", "model", "modelFormat"), {"version": 1}),
        ((), {"status": {}}),
    ],
)
def test_the_check_finds_a_wrong_field_of_an_inference_service(where, wrong):
    document = yaml.safe_load((MANIFESTS / "kserve" / "inference-service.yaml").read_text())
    group = document
    for key in where:
        group = group[key]
    group.update(wrong)
    with pytest.raises(AssertionError):
        check_inference_service(document)


@pytest.mark.parametrize("folder", sorted(folder.name for folder in MANIFESTS.iterdir()))
def test_kustomizations_name_what_is_there(folder):
    kustomization = yaml.safe_load((MANIFESTS / folder / "kustomization.yaml").read_text())
    named = kustomization["resources"] + [patch["path"] for patch in kustomization.get("patches", [])]
    for resource in named:
        assert (MANIFESTS / folder / resource).exists()
    files = {file.name for file in (MANIFESTS / folder).iterdir()} - {"kustomization.yaml"}
    assert files == set(named) - {"../base"}


def test_containers_run_without_privileges_and_serving_has_what_is_pushed():
    documents = {(d["kind"], d["metadata"]["name"]): d for _, f, d in _documents() if f.parent.name in ("base", "mysql")
                 and d["kind"] != "Kustomization"}  # fmt: skip
    for kind, name in (("Deployment", "ctr-serving"), ("Job", "ctr-prepare-volume"), ("StatefulSet", "ctr-metadata")):
        for container in documents[kind, name]["spec"]["template"]["spec"]["containers"]:
            context = container["securityContext"]
            assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
            assert context["capabilities"]["drop"] == ["ALL"]
            assert "limits" in container["resources"]
    config = load_config(None)
    pod = documents["Deployment", "ctr-serving"]["spec"]["template"]["spec"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == config.kubeflow.pvc
    (mount, _) = pod["containers"][0]["volumeMounts"]
    assert mount["subPath"] == f"{config.runs_dir}/{config.name}/serving"
    assert mount["readOnly"]
    roles = [rule for rule in documents["Role", "ctr-pipeline"]["rules"] if "secrets" in rule["resources"]]
    assert all(rule.get("resourceNames") and rule["verbs"] == ["get"] for rule in roles)


def test_the_flink_cluster_is_the_images_beams_and_has_what_the_config_names():
    documents = {(d["kind"], d["metadata"]["name"]): d for _, f, d in _documents() if f.parent.name == "flink"
                 and d["kind"] != "Kustomization"}  # fmt: skip
    pods = {name: d["spec"]["template"]["spec"] for (kind, name), d in documents.items() if kind == "Deployment"}
    for pod in pods.values():
        for container in pod["containers"]:
            context = container["securityContext"]
            assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
            assert context["capabilities"]["drop"] == ["ALL"]
            assert "limits" in container["resources"]
    (job_server,) = pods["ctr-beam-job-server"]["containers"]
    (job_manager,) = pods["ctr-flink-job-manager"]["containers"]
    task_manager, worker_pool = pods["ctr-flink-task-manager"]["containers"]
    # One version of Flink, and one of Beam.
    assert job_manager["image"] == task_manager["image"]
    flink, beam = re.fullmatch(r"apache/beam_flink([0-9.]+)_job_server:([0-9.]+)", job_server["image"]).groups()
    assert job_manager["image"].startswith(f"flink:{flink}-")
    assert f"apache/beam_python3.11_sdk:{beam}" in (FOLDER / "Dockerfile").read_text()
    assert f"apache-beam=={beam} \\\n" in (FOLDER.parent / "requirements/tfx-1.21-py3.11.lock").read_text()
    # The volume is where the containers of the pipeline have it, for all that read or write there.
    config = load_config(None)
    for container, name in (
        (job_server, "ctr-beam-job-server"),
        (task_manager, "ctr-flink-task-manager"),
        (worker_pool, "ctr-flink-task-manager"),
    ):
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts["root"] == config.kubeflow.root
        volumes = {volume["name"]: volume for volume in pods[name]["volumes"]}
        assert volumes["root"]["persistentVolumeClaim"]["claimName"] == config.kubeflow.pvc
    # What docs/beam.md says to write into the config is where these listen.
    text = (FOLDER.parent / "docs" / "beam.md").read_text()
    service = documents["Service", "ctr-beam-job-server"]
    assert "job_endpoint: ctr-beam-job-server:8099" in text
    assert "artifact_endpoint: ctr-beam-job-server:8098" in text
    assert {port["port"] for port in service["spec"]["ports"]} == {8098, 8099}
    assert "worker_pool: localhost:50000" in text  # the port of Beam's boot program; it takes no other
    assert worker_pool["args"] == ["--worker_pool"]
    assert [port["containerPort"] for port in worker_pool["ports"]] == [50000]
    # A slot has a Python process of its own, and the ports that the addresses name are those that are open.
    flink_config = yaml.safe_load(documents["ConfigMap", "ctr-flink"]["data"]["config.yaml"])
    assert flink_config["taskmanager"]["numberOfTaskSlots"] == 1
    manager = documents["Service", "ctr-flink-job-manager"]
    assert (
        manager["metadata"]["name"] == flink_config["rest"]["address"] == flink_config["jobmanager"]["rpc"]["address"]
    )
    assert f"--flink-master={manager['metadata']['name']}:{flink_config['rest']['port']}" in job_server["args"]
