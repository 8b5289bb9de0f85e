"""The package for Kubeflow Pipelines, for every config."""

from __future__ import annotations

import ast
import pathlib
import re
import subprocess
import sys
import tempfile

import pytest
import yaml
from click.testing import CliRunner
from google.protobuf import json_format
from kfp import components
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.dsl.compiler.compiler import Compiler

from pipeline.cli import main
from pipeline.cli_kubeflow import FOLDER, load
from pipeline.config import CONFIGS, ConfigError, config_from_json, load_config
from pipeline.pipeline import create_pipeline
from schemas.features import FeatureSpec, IdFeature
from schemas.tfmd import schema_text

IMAGE = "registry.example/ctr:1"
GOLDEN = pathlib.Path(__file__).parent / "everything.yaml"
CASES = {
    **{file.stem: (file.stem, ()) for file in sorted(CONFIGS.glob("*.yaml"))},
    "everything": (
        "movielens",
        (
            "tuner.trials=2",
            "training.warm_start=true",
            "kubeflow.metadata=mysql://ctr@mysql.ml:3306/metadata",
            "kubeflow.environment={LEVEL: info}",
            "kubeflow.secrets={METADATA_PASSWORD: mysql/password}",
            "kubeflow.config_maps={REGION: site/region}",
            "kubeflow.image_pull_secrets=[registry]",
            "kubeflow.pod={cpu_request: 500m, memory_limit: 4Gi, timeout_seconds: 3600, retries: 1}",
            "kubeflow.nodes={Trainer: {cpu_limit: '8', memory_limit: 32Gi, gpus: 1, retries: 3, backoff_seconds: 60, "
            "node_selector: {pool: gpu}, tolerations: [{key: gpu, operator: Exists, effect: NoSchedule}]}}",
        ),
    ),
}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """A config and the two documents of its package."""
    name, overrides = CASES[request.param]
    config = load_config(pathlib.Path(name), overrides)
    out = tmp_path_factory.mktemp("package") / "pipeline.yaml"
    load("compile").compile_package(config, IMAGE, out)
    return request.param, config, out


def _documents(out):
    documents = list(yaml.safe_load_all(out.read_text()))
    return documents[0], documents[1] if len(documents) > 1 else {}


def _kebab(name):
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def test_it_is_schema_2_1_parses_strictly_and_loads_in_the_sdk(case):
    _, config, out = case
    ir, _ = _documents(out)
    assert ir["schemaVersion"] == "2.1.0"
    spec = json_format.ParseDict(ir, pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=False)
    assert spec.pipeline_info.name == config.name
    assert components.load_component_from_file(str(out)).pipeline_spec == spec


def test_it_has_the_nodes_and_edges_of_the_local_dag(case):
    _, config, out = case
    tasks = _documents(out)[0]["root"]["dag"]["tasks"]
    local = {
        node.pipeline_node.node_info.id: set(node.pipeline_node.upstream_nodes)
        for node in Compiler().compile(create_pipeline(config)).nodes
    }
    assert {task["taskInfo"]["name"]: set(task.get("dependentTasks", [])) for task in tasks.values()} == {
        node: {_kebab(name) for name in upstream} for node, upstream in local.items()
    }


def test_every_name_is_one_that_argo_takes(case):
    ir, _ = _documents(case[2])
    names = [ir["pipelineInfo"]["name"], *ir["components"], *ir["root"]["dag"]["tasks"]]
    names += ir["deploymentSpec"]["executors"]
    assert [name for name in names if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name)] == []


def test_every_executor_is_a_container_of_the_one_image_and_runs_the_node_command(case):
    ir, _ = _documents(case[2])
    for executor in ir["deploymentSpec"]["executors"].values():
        assert set(executor) == {"container"}
        assert executor["container"]["image"] == IMAGE
        assert executor["container"]["command"] == ["python", "-m", "pipeline.node"]
        assert executor["container"]["args"][2:4] == ["--run-id", "{{$.pipeline_job_uuid}}"]


def test_it_has_no_path_of_the_machine_that_compiled_it_and_is_small(case):
    text = case[2].read_text()
    assert str(pathlib.Path.cwd()) not in text
    assert str(pathlib.Path.home()) + "/" not in text
    assert set(re.findall(r'"(/[^"]*)"', text)) == {"/mnt/ctr/runs", f"/mnt/ctr/{case[1].log.path}"}
    assert len(text) < 200_000


def test_kfp_does_not_cache(case):
    tasks = _documents(case[2])[0]["root"]["dag"]["tasks"]
    assert [name for name, task in tasks.items() if task["cachingOptions"]] == []


def test_the_containers_config_is_the_compiled_one_with_its_folders_below_the_root(case):
    _, config, out = case
    for executor in _documents(out)[0]["deploymentSpec"]["executors"].values():
        arguments = executor["container"]["args"]
        given = config_from_json(arguments[arguments.index("--config") + 1])
        assert (given.runs_dir, given.log.path) == ("/mnt/ctr/runs", f"/mnt/ctr/{config.log.path}")
        assert given.training == config.training
        assert given.evaluation == config.evaluation


def test_parameters_can_be_changed_at_submission(case):
    ir, _ = _documents(case[2])
    parameters = ir["root"]["inputDefinitions"]["parameters"]
    assert parameters["as_of"] == {"defaultValue": "", "isOptional": True, "parameterType": "STRING"}
    assert parameters["max_epochs"]["parameterType"] == "NUMBER_INTEGER"
    for executor in ir["deploymentSpec"]["executors"].values():
        assert "log.as_of={{$.inputs.parameters['as_of']}}" in executor["container"]["args"]


def test_a_parameter_that_may_be_null_is_a_text_and_a_submission_is_checked_by_the_config(tmp_path):
    out = tmp_path / "pipeline.yaml"
    load("compile").compile_package(load_config(None, ["log.train_days=7"]), IMAGE, out)
    parameters = _documents(out)[0]["root"]["inputDefinitions"]["parameters"]
    assert parameters["train_days"] == {"defaultValue": "7", "isOptional": True, "parameterType": "STRING"}
    client = load("client")
    assert client.read_parameters(out, {"train_days": "", "max_epochs": "2"}) == {"train_days": "", "max_epochs": 2}
    with pytest.raises(client.KubeflowError, match=r"^evaluation\.max_log_loss must be a number, not \"abc\"$"):
        client.read_parameters(out, {"max_log_loss": "abc"})


def test_pipelines_with_different_names_are_different_ones_in_kfp(tmp_path):
    names = ["my-shop", "my_shop", "my--shop", "my-shop_"]
    in_kfp = []
    for name in names:
        load("compile").compile_package(load_config(None, [f"name={name}"]), IMAGE, tmp_path / "pipeline.yaml")
        in_kfp.append(_documents(tmp_path / "pipeline.yaml")[0]["pipelineInfo"]["name"])
    assert in_kfp[0] == "my-shop"
    assert len(set(in_kfp)) == len(names)
    assert [name for name in in_kfp[1:] if not re.fullmatch(r"my-shop-[0-9a-f]{8}", name)] == []


def test_the_evaluation_is_an_output_of_kfp(case):
    ir, _ = _documents(case[2])
    outputs = ir["components"]["comp-evaluator"]["outputDefinitions"]["artifacts"]
    assert outputs["metrics"]["artifactType"]["schemaTitle"] == "system.Metrics"
    outputs = ir["components"]["comp-evaluation-report"]["outputDefinitions"]["artifacts"]
    assert outputs["report"]["artifactType"]["schemaTitle"] == "system.HTML"
    assert ir["deploymentSpec"]["executors"]["exec-evaluator"]["container"]["args"][-2:] == [
        "--executor-input",
        "{{$}}",
    ]


def _compile_everything(folder):
    name, overrides = CASES["everything"]
    out = folder / "pipeline.yaml"
    load("compile").compile_package(load_config(pathlib.Path(name), overrides), IMAGE, out)
    return _documents(out)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    return _compile_everything(tmp_path_factory.mktemp("everything"))


def test_pods_get_what_the_config_says(everything):
    ir, platform = everything
    executors = ir["deploymentSpec"]["executors"]
    trainer, transform = (executors[f"exec-{node}"]["container"] for node in ("trainer", "transform"))
    assert (trainer["resources"]["cpuLimit"], trainer["resources"]["cpuRequest"]) == (8.0, 0.5)
    assert trainer["resources"]["accelerator"]["type"] == "nvidia.com/gpu"
    assert "accelerator" not in transform["resources"]
    assert trainer["env"] == [{"name": "LEVEL", "value": "info"}]
    tasks = ir["root"]["dag"]["tasks"]
    assert tasks["trainer"]["retryPolicy"]["maxRetryCount"] == 3
    assert tasks["trainer"]["retryPolicy"]["backoffDuration"] == "60s"
    assert tasks["transform"]["retryPolicy"]["maxRetryCount"] == 1
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(pods) == set(executors)
    assert pods["exec-trainer"]["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert pods["exec-trainer"]["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "tolerations" not in pods["exec-transform"]
    assert pods["exec-transform"]["activeDeadlineSeconds"] == "3600"
    (secret,) = pods["exec-pusher"]["secretAsEnv"]
    assert (secret["secretName"], secret["keyToEnv"]) == (
        "mysql", [{"secretKey": "password", "envVar": "METADATA_PASSWORD"}],
    )  # fmt: skip


def test_kubernetes_settings_are_as_kfp_kubernetes_reads_them(everything):
    from kfp.kubernetes import kubernetes_executor_config_pb2 as proto

    known = {field.json_name for field in proto.KubernetesExecutorConfig.DESCRIPTOR.fields}
    strict = "tolerations" in known  # kfp-kubernetes 1.0, that of the older stack, does not know all that servers do
    for settings in everything[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        parsed = json_format.ParseDict(settings, proto.KubernetesExecutorConfig(), ignore_unknown_fields=not strict)
        assert parsed.pvc_mount[0].mount_path == "/mnt/ctr"
        assert parsed.secret_as_env[0].key_to_env[0].env_var == "METADATA_PASSWORD"


def _gist(ir, platform):
    """What is the same from every kfp: it writes its version into the package, newer ones more of each parameter."""
    executors = ir["deploymentSpec"]["executors"]
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {
        name: {
            "after": sorted(task.get("dependentTasks", [])),
            "retry": task["retryPolicy"],
            "args": [
                "CONFIG" if word.startswith('{"') else word for word in executors[f"exec-{name}"]["container"]["args"]
            ],
            "pod": pods[f"exec-{name}"],
        }
        for name, task in ir["root"]["dag"]["tasks"].items()
    }


def test_the_package_is_the_golden_one(everything):
    # After a change that is meant: python -m tests.kubeflow.test_compile
    assert _gist(*everything) == yaml.safe_load(GOLDEN.read_text())


BAD = {
    "a node that is not there": ("kubeflow.nodes={Trainr: {retries: 1}}", "no node Trainr; it has .*Trainer"),
    "a parameter that is not there": ("kubeflow.parameters=[training.epochs]", "there is no setting training.epochs"),
    "a password in a URL": (
        "kubeflow.metadata=mysql://root:secret@mysql.kubeflow/db",
        "kubeflow.metadata: the password belongs into the environment variable METADATA_PASSWORD",
    ),
    "a metadata service without a port": (
        "kubeflow.metadata=grpc://metadata",
        "grpc://metadata: write grpc://HOST:PORT",
    ),
    "a parameter that is a group": ("kubeflow.parameters=[training]", "training is not one value"),
}


@pytest.mark.parametrize(("override", "message"), BAD.values(), ids=BAD.keys())
def test_a_setting_that_does_not_fit_is_an_error_and_leaves_no_file(override, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        load("compile").compile_package(load_config(None, [override]), IMAGE, tmp_path / "pipeline.yaml")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_where_the_package_is_or_what_is_wrong_in_one_line(tmp_path):
    out = tmp_path / "pipeline.yaml"
    command = ["kubeflow", "compile", "--image", IMAGE, "--out", str(out)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0
    assert re.fullmatch(rf"written: {out}, [0-9]+ kB\n", result.output)
    out.unlink()
    result = CliRunner().invoke(main, [*command, "--target", "vertex"])
    assert (result.exit_code, out.exists()) == (1, False)
    assert re.fullmatch(r"ctr: kubeflow.root: .*/gcs/BUCKET/FOLDER\n", result.output)


def test_the_command_finds_a_spec_in_the_current_folder_and_names_one_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    source = (
        "from schemas.features import FeatureSpec, IdFeature\nSPEC = FeatureSpec('own', (IdFeature('item', 10),))\n"
    )
    pathlib.Path("own_spec_of_the_test.py").write_text(source)
    spec = FeatureSpec("own", (IdFeature("item", 10),))
    pathlib.Path("schema.pbtxt").write_text(schema_text(spec))
    settings = ["features=own_spec_of_the_test:SPEC", "schema_file=schema.pbtxt", "evaluation.slices=[]"]
    settings += ["model.id_dropout_of={}"]
    command = ["kubeflow", "compile", "--image", IMAGE, *(word for pair in settings for word in ("--set", pair))]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert pathlib.Path("pipeline.yaml").is_file()
    result = CliRunner().invoke(main, [*command, "--set", "features=nowhere:SPEC", "--out", "other.yaml"])
    assert (result.exit_code, result.output) == (1, "ctr: features 'nowhere:SPEC': No module named 'nowhere'\n")
    assert not pathlib.Path("other.yaml").exists()


def test_the_folder_imports_only_the_pipeline_and_is_no_package():
    assert not (FOLDER / "__init__.py").exists()
    ours = {"pipeline", "components", "transform", "trainer", "schemas", "tests", "benchmarks"}
    for file in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert {name.partition(".")[0] for name in names} & ours <= {"pipeline"}, file


def test_it_is_found_beside_an_installed_sdk_of_the_same_name(tmp_path):
    sdk = tmp_path / "kubeflow"
    sdk.mkdir()
    (sdk / "__init__.py").write_text("sdk = True\n")
    code = (
        "import kubeflow; assert kubeflow.sdk; from pipeline.cli_kubeflow import load; "
        "assert load('pods').configure; assert not hasattr(kubeflow, 'pods')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        GOLDEN.write_text(yaml.safe_dump(_gist(*_compile_everything(pathlib.Path(temporary)))))
