"""The `beam` config: what flags it becomes, and what a run is told before it starts."""

from __future__ import annotations

import pathlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners import create_runner
from click.testing import CliRunner
from tfx.dsl.compiler.compiler import Compiler

from pipeline import node, preflight
from pipeline.beam import LOCAL_BEAM_ARGS, BeamConfig, beam_args
from pipeline.cli import main
from pipeline.cli_kubeflow import load
from pipeline.config import ConfigError, LogConfig, PipelineConfig, config_to_json, load_config
from pipeline.pipeline import create_pipeline

JOB_SERVER: dict[str, Any] = {"job_endpoint": "jobs.beam:8099", "job_server_timeout": 604_800}
# What Beam's own parser reads from the flags, without its defaults.
FLAGS = {
    "local": (BeamConfig(), {"runner": LOCAL_BEAM_ARGS[0].partition("=")[2], "sdk_container_image": "unused"}),
    "local, in processes": (
        BeamConfig(workers=4),
        {
            "runner": LOCAL_BEAM_ARGS[0].partition("=")[2],
            "sdk_container_image": "unused",
            "direct_running_mode": "multi_processing",
            "direct_num_workers": 4,
        },
    ),
    "flink, with a pool beside each task manager": (
        BeamConfig(
            "flink",
            workers=8,
            job_endpoint="jobs.beam:8099",
            artifact_endpoint="jobs.beam:8098",
            worker_pool="localhost:50000",
            shared_folder="/mnt/ctr",
            args=("--sdk_worker_parallelism=4",),
        ),
        JOB_SERVER
        | {
            "runner": "FlinkRunner",
            "artifact_endpoint": "jobs.beam:8098",
            "environment_type": "EXTERNAL",
            "environment_config": "localhost:50000",
            "parallelism": 8,
            "sdk_container_image": "unused",
            "sdk_worker_parallelism": "4",
        },
    ),
    "spark, with containers": (
        BeamConfig("spark", job_endpoint="jobs.beam:8099", image="reg/ctr:1", shared_folder="/mnt/ctr"),
        JOB_SERVER
        | {
            "runner": "SparkRunner",
            "environment_type": "DOCKER",
            "environment_config": "reg/ctr:1",
            "sdk_container_image": "reg/ctr:1",
        },
    ),
    "portable": (
        BeamConfig("portable", job_endpoint="jobs.beam:8099", worker_pool="pool:50000", shared_folder="/mnt/ctr"),
        JOB_SERVER
        | {
            "runner": "PortableRunner",
            "environment_type": "EXTERNAL",
            "environment_config": "pool:50000",
            "sdk_container_image": "unused",
        },
    ),
    "dataflow": (
        BeamConfig(
            "dataflow",
            workers=20,
            image="reg/ctr:1",
            shared_folder="/mnt/ctr",
            project="shop",
            region="europe-west1",
            temp_location="gs://shop/tmp",
        ),
        {
            "runner": "DataflowRunner",
            "sdk_location": "container",
            "sdk_container_image": "reg/ctr:1",
            "project": "shop",
            "region": "europe-west1",
            "temp_location": "gs://shop/tmp",
            "staging_location": "gs://shop/tmp",
            "max_num_workers": 20,
        },
    ),
}


@pytest.mark.parametrize(("config", "expected"), FLAGS.values(), ids=FLAGS.keys())
def test_beam_reads_from_the_flags_what_the_config_says(
    config: BeamConfig, expected: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    options = PipelineOptions(beam_args(config))
    assert options.get_all_options(drop_default=True) == expected
    assert "unparseable" not in caplog.text
    if config.runner != "dataflow":  # there it asks Google about the bucket
        assert PipelineOptionsValidator(options, create_runner(expected["runner"])).validate() == []


def test_the_pipelines_beam_steps_get_the_flags(tmp_path: pathlib.Path) -> None:
    config = PipelineConfig(runs_dir=str(tmp_path), beam=BeamConfig(workers=3))
    assert create_pipeline(config).beam_pipeline_args == beam_args(config.beam)


WRONG = {
    "a runner that is not there": ("beam.runner=prism", "beam.runner must be 'local', 'flink', 'spark', 'dataflow'"),
    "a folder that is in no bucket": (
        "beam={runner: dataflow, temp_location: /a}",
        "beam.temp_location must be text",
    ),
    "an endpoint with a scheme": ("beam={runner: flink, job_endpoint: 'http://a:1'}", "beam.job_endpoint must be text"),
    "no workers": ("beam.workers=0", "beam.workers must be greater than 0"),
    "workers of Spark": ("beam={runner: spark, workers: 2}", "workers is for the runner local or flink or dataflow"),
    "an endpoint without a runner": ("beam.job_endpoint=a:1", "job_endpoint is for the runner flink or spark or"),
    "a region of Flink": ("beam={runner: flink, region: a}", "region is for the runner dataflow, and runner is flink"),
}


@pytest.mark.parametrize(("override", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_setting_that_cannot_be_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])


@pytest.fixture
def listening() -> Iterator[str]:
    """The address of something that takes connections."""
    with socket.create_server(("localhost", 0)) as server:
        yield f"localhost:{server.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    """An address where nothing does."""
    with socket.create_server(("localhost", 0)) as server:
        return f"localhost:{server.getsockname()[1]}"


def _problems(config: BeamConfig, log: str = "/mnt/ctr/logs", runs_dir: str = "/mnt/ctr/runs") -> list[str]:
    try:
        preflight.check_beam(config, {"log.path": log, "runs_dir": runs_dir})
    except preflight.PreflightError as error:
        return str(error).splitlines()
    return []


def test_what_a_job_server_needs_is_named_line_by_line() -> None:
    endpoint, pool, shared = _problems(BeamConfig("flink"))
    assert endpoint == "beam.job_endpoint is not set: name the HOST:PORT of the Beam job server of flink"
    assert pool.startswith("beam.worker_pool is not set: ")
    assert pool.endswith("or beam.image where it is to start workers with Docker, either of kubeflow/Dockerfile")
    assert shared.startswith("beam.shared_folder is not set: ")


def test_what_dataflow_needs_is_named_line_by_line() -> None:
    assert [line.split(" is not set")[0] for line in _problems(BeamConfig("dataflow"))] == [
        f"beam.{name}" for name in ("project", "region", "temp_location", "image", "shared_folder")
    ]


def test_dataflow_without_its_packages_is_told_which(monkeypatch: pytest.MonkeyPatch) -> None:
    config = FLAGS["dataflow"][0]
    assert _problems(config) == []
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    assert _problems(config) == [
        "beam.runner: Dataflow needs Beam's packages for Google Cloud: pip install 'apache-beam[gcp]'"
    ]


def test_a_job_server_that_does_not_listen_is_named(listening: str, closed: str) -> None:
    settings: dict[str, Any] = {"image": "reg/ctr:1", "shared_folder": "/mnt/ctr"}
    assert _problems(BeamConfig("spark", job_endpoint=listening, **settings)) == []
    assert _problems(BeamConfig("spark", job_endpoint=closed, **settings)) == [
        f"beam.job_endpoint: nothing listens at {closed} (Connection refused): start it, or correct the address; see "
        "docs/beam.md"
    ]
    elsewhere = BeamConfig("spark", job_endpoint=listening, artifact_endpoint=closed, **settings)
    assert _problems(elsewhere)[0].startswith(f"beam.artifact_endpoint: nothing listens at {closed} (")
    (problem,) = _problems(BeamConfig("spark", job_endpoint="no-such-host.invalid:1", **settings))
    assert problem.startswith("beam.job_endpoint: nothing listens at no-such-host.invalid:1 (")


def test_a_pool_on_this_machine_is_asked_too_but_not_one_of_a_clusters_machines(listening: str, closed: str) -> None:
    settings: dict[str, Any] = {"job_endpoint": listening, "worker_pool": closed, "shared_folder": "/mnt/ctr"}
    (problem,) = _problems(BeamConfig("portable", **settings))
    assert problem.startswith(f"beam.worker_pool: nothing listens at {closed} (")
    assert _problems(BeamConfig("flink", **settings)) == []


def test_folders_outside_the_shared_one_are_named(listening: str, tmp_path: pathlib.Path) -> None:
    config = BeamConfig("flink", job_endpoint=listening, image="reg/ctr:1", shared_folder="/mnt/ctr")
    assert _problems(config, log="/mnt/ctr/../other/logs") == [
        "log.path: the Beam workers do not see /mnt/other/logs: put it into beam.shared_folder, which is /mnt/ctr"
    ]
    assert _problems(config, runs_dir="runs")[0].startswith("runs_dir: the Beam workers do not see ")
    assert _problems(config, runs_dir="/mnt/ctrl/runs")[0].startswith("runs_dir: ")


def test_a_folder_that_only_looks_as_if_it_were_shared_is_named(listening: str, tmp_path: pathlib.Path) -> None:
    elsewhere, shared = tmp_path / "elsewhere", tmp_path / "shared"
    elsewhere.mkdir()
    shared.mkdir()
    (shared / "logs").symlink_to(elsewhere)
    config = BeamConfig("flink", job_endpoint=listening, image="reg/ctr:1", shared_folder=str(shared))
    (problem,) = _problems(config, log=str(shared / "logs"), runs_dir=str(shared / "runs"))
    assert problem.startswith(f"log.path: the Beam workers do not see {elsewhere}: ")


def test_ctr_score_says_it_before_it_starts(tmp_path: pathlib.Path, listening: str) -> None:
    settings = ["beam.runner=flink", f"beam.job_endpoint={listening}", "beam.worker_pool=localhost:50000"]
    settings += [f"beam.shared_folder={tmp_path}"]
    paths = ["--model", str(tmp_path / "model"), "--input", "/elsewhere/log", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, ["score", *paths, *(word for setting in settings for word in ("--set", setting))])
    assert result.exit_code == 1
    assert result.output.startswith("ctr: --input: the Beam workers do not see /elsewhere/log: put it into")


def test_ctr_run_says_it_before_it_starts(tmp_path: pathlib.Path, closed: str) -> None:
    settings = [f"beam.job_endpoint={closed}", "beam.runner=flink", "beam.worker_pool=localhost:50000"]
    settings += [f"beam.shared_folder={tmp_path}", f"log.path={tmp_path / 'log'}", f"runs_dir={tmp_path / 'runs'}"]
    result = CliRunner().invoke(main, ["run", *(word for setting in settings for word in ("--set", setting))])
    assert result.exit_code == 1
    assert f"beam.job_endpoint: nothing listens at {closed}" in result.output
    assert not (tmp_path / "runs").exists()


def test_a_container_whose_node_uses_beam_says_it_before_it_starts(
    tmp_path: pathlib.Path, closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)  # this is no container
    beam = BeamConfig("flink", job_endpoint=closed, worker_pool="localhost:50000", shared_folder=str(tmp_path))
    log = LogConfig(path=str(tmp_path / "log"))
    config = PipelineConfig(runs_dir=str(tmp_path / "runs"), log=log, beam=beam)
    store = f"sqlite://{tmp_path / 'metadata.sqlite'}"
    arguments = ["--run-id", "1", "--config", config_to_json(config), "--metadata", store]
    with pytest.raises(preflight.PreflightError, match=f"^beam.job_endpoint: nothing listens at {closed}"):
        node.main(["--node", "ImpressionLogExampleGen", *arguments])
    node.main(["--node", "CuratedSchemaGen", *arguments])  # this one does not, and runs


def test_these_nodes_use_beam(tmp_path: pathlib.Path) -> None:
    compiled = Compiler().compile(create_pipeline(PipelineConfig(runs_dir=str(tmp_path))))
    nodes = [entry.pipeline_node.node_info.id for entry in compiled.nodes]
    assert {name for name in nodes if node.uses_beam(compiled, name)} == {
        "ImpressionLogExampleGen",
        "StatisticsGen",
        "Transform",
        "Evaluator",
    }


def test_containers_share_their_folder_or_their_image_with_the_workers() -> None:
    overrides = ["beam={runner: flink, job_endpoint: 'jobs.beam:8099', worker_pool: 'localhost:50000'}"]
    beam = load("compile").container_config(load_config(None, overrides), "reg/ctr:1").beam
    assert (beam.image, beam.shared_folder) == (None, "/mnt/ctr")
    dataflow = load("compile").container_config(load_config(None, ["beam.runner=dataflow"]), "reg/ctr:1").beam
    assert (dataflow.image, dataflow.shared_folder) == ("reg/ctr:1", None)  # its machines do not mount the volume
    local = load("compile").container_config(load_config(None), "reg/ctr:1").beam
    assert local == BeamConfig()


def test_a_package_whose_workers_cannot_work_is_not_compiled(tmp_path: pathlib.Path) -> None:
    compile_package = load("compile").compile_package
    with pytest.raises(ConfigError, match=r"^beam\.job_endpoint is not set"):
        compile_package(load_config(None, ["beam.runner=flink"]), "reg/ctr:1", tmp_path / "pipeline.yaml")
    elsewhere = ["beam={runner: flink, job_endpoint: 'a:1', worker_pool: 'a:2', shared_folder: /data}"]
    with pytest.raises(ConfigError, match=r"^log\.path: the Beam workers do not see /mnt/ctr/logs"):
        compile_package(load_config(None, elsewhere), "reg/ctr:1", tmp_path / "pipeline.yaml")
    assert list(tmp_path.iterdir()) == []


def test_a_submission_cannot_change_where_beam_runs() -> None:
    with pytest.raises(ConfigError, match=r"beam\.workers is compiled into the package"):
        load_config(None, ["kubeflow.parameters=[beam.workers]"])


def test_the_config_is_read_without_beam_or_tfx() -> None:
    code = (
        "import sys, pipeline.preflight; print([m for m in ('apache_beam', 'tfx', 'tensorflow') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
