from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import pipeline
from pipeline.cli import main
from pipeline.lock import hold_lock
from pipeline.movielens import ImpressionLog, MovieLensError
from pipeline.rollback import Rollback
from pipeline.supervise import RunFailedError
from schemas.features import FeatureSpec, NumericFeature, load_spec
from schemas.tfmd import schema_text

ROOT = Path(pipeline.__file__).parents[1]
HEAVY = ("tensorflow", "tfx", "apache_beam", "pyarrow", "pydantic", "rich", "yaml")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def log(in_empty_folder: Path) -> Path:
    for day in (1, 2):
        folder = in_empty_folder / "logs" / "movielens" / f"day=1998-01-0{day}"
        folder.mkdir(parents=True)
        (folder / "part-0.parquet").touch()
    return folder.parent


@pytest.fixture
def supervised(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configs that `ctr run` has run, which none of these tests does."""
    configs: list[Any] = []
    monkeypatch.setattr("pipeline.supervise.supervise", lambda config, lock: configs.append(config))
    return configs


def ctr(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="ctr")


def in_process(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["run", "--help"], ["predict", "--help"], ["score", "--help"]],
    ids=" ".join,
)
def test_help_answers_at_once_and_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from pipeline.cli import main
from pipeline.lock import hold_lock
try:
    main({arguments}, prog_name="ctr")
finally:
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
    seconds = []
    for _ in range(4):  # the first one may have to compile; of the processor, as others may use it, too
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        finished = in_process(code)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert 0 < min(seconds) < 1
    assert finished.returncode == 0
    assert finished.stdout.startswith(("Usage: ctr", "ctr, version 0.1"))
    assert finished.stderr == "[]\n"


def test_a_bad_config_is_told_before_anything_heavy_is_imported() -> None:
    code = """
import sys
from pipeline.cli import main
from pipeline.lock import hold_lock
try:
    main(["run", "--set", "a=1"])
finally:
    print([name for name in ("tensorflow", "tfx", "apache_beam", "pyarrow") if name in sys.modules])
"""
    finished = in_process(code)
    assert (finished.returncode, finished.stdout) == (1, "[]\n")


def test_a_run_gets_the_config_with_its_overrides(log: Path, supervised: list[Any]) -> None:
    result = ctr("run", "--set", "log.eval_days=1", "--set", "training.seed=7")
    assert (result.exit_code, result.output) == (0, "")
    (config,) = supervised
    assert (config.name, config.training.seed) == ("movielens", 7)
    assert Path("runs/movielens/logs").is_dir()


def test_as_of_goes_before_the_configs(log: Path, supervised: list[Any]) -> None:
    newest = max(log.iterdir()).name.removeprefix("day=")
    assert ctr("run", "--set", "log.eval_days=1", "--set", "log.as_of=2000-01-01", "--as-of", newest).exit_code == 0
    assert supervised[0].log.as_of == newest
    result = ctr("run", "--set", "log.eval_days=1", "--as-of", "1970-01-01")
    assert result.output.startswith(
        "ctr: log.as_of: the impression log has 0 day(s) with rows up to 1970-01-01 (2 in all, from "
    )
    assert "too few for 1 eval day(s) and at least one training day: name a later day" in result.output


@pytest.mark.parametrize("day", ["", "null", "2026-03-04 # x"])
def test_a_day_that_is_none_is_not_the_newest(day: str, log: Path, supervised: list[Any]) -> None:
    result = ctr("run", "--set", "log.eval_days=1", "--as-of", day)
    assert result.exit_code == 1
    assert "log.as_of" in result.output
    assert not supervised


def test_a_run_takes_a_config_file(log: Path, supervised: list[Any]) -> None:
    Path("mine.yaml").write_text("name: mine", encoding="utf-8")
    assert ctr("run", "--config", "mine.yaml").exit_code == 0
    assert supervised[0].name == "mine"


def test_a_run_takes_a_spec_from_the_current_folder(log: Path, supervised: list[Any]) -> None:
    spec = "from schemas.features import *\nSPEC = FeatureSpec('mine', (IdFeature('site', 10),))"
    Path("spec_in_the_current_folder.py").write_text(spec, encoding="utf-8")
    settings = ["--set", "features=spec_in_the_current_folder:SPEC", "--set", "log.eval_days=1"]
    settings += ["--set", "evaluation.slices=[[site]]", "--set", "model.id_dropout_of={}"]
    without_schema = ctr("run", *settings)
    assert (without_schema.exit_code, without_schema.stderr.count("\n")) == (1, 1)
    assert "mine.pbtxt; make it with: python -m schemas.tfmd spec_in_the_current_folder:SPEC " in without_schema.stderr
    Path("mine.pbtxt").write_text(schema_text(load_spec("spec_in_the_current_folder:SPEC")), encoding="utf-8")
    result = ctr("run", *settings)
    assert result.output == ""
    assert len(supervised) == 1


def broken_module(text: str) -> Callable[[], None]:
    return lambda: Path("broken_spec.py").write_text(text, encoding="utf-8") and None


def nothing() -> None:
    pass


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


BAD_RUNS = {
    "unknown key": (nothing, ["a=1"], "ctr: unknown key a: known are "),
    "no config file": (nothing, ["--config", "zzz"], "ctr: config zzz: no such file; packaged are criteo, movielens\n"),
    "spec's module missing": (
        nothing,
        ["features=nowhere:X"],
        "ctr: features 'nowhere:X': No module named 'nowhere'\n",
    ),
    "spec's form": (nothing, ["features=x"], "ctr: features 'x' is not of the form package.module:NAME\n"),
    "spec's syntax": (
        broken_module("("),
        ["features=broken_spec:X"],
        "ctr: features 'broken_spec:X': SyntaxError: '(' was never closed (broken_spec.py, line 1)\n",
    ),
    "spec's values": (
        broken_module("from schemas.features import *\nIdFeature('site', 0)"),
        ["features=broken_spec:X"],
        "ctr: features 'broken_spec:X': ValueError: site: num_buckets is 0, must be positive\n",
    ),
    "slice nearly a feature": (
        nothing,
        ["evaluation.slices=[[age], [gendr]]"],
        "ctr: evaluation.slices[1]: schemas.movielens:MOVIELENS has no feature gendr; did you mean gender?\n",
    ),
    "slice by a float": (
        nothing,
        ["evaluation.slices=[[user_click_share]]"],
        "ctr: evaluation.slices[0]: user_click_share is not a whole number, and nearly every impression would be a ",
    ),
    "slice by the label": (
        nothing,
        ["evaluation.slices=[[label]]"],
        "ctr: evaluation.slices[0]: schemas.movielens:MOVIELENS has no feature label; they are user_id, item_id, ",
    ),
    "MovieLens not there": (
        nothing,
        ["log.path=elsewhere"],
        "ctr: log.path: there is no impression log at elsewhere: write one there, or correct the path "
        "(`ctr data movielens --out elsewhere` writes it)\n",
    ),
    "other log not there": (
        nothing,
        ["features=schemas.notebook:NOTEBOOK", "evaluation.slices=[]", "model.id_dropout_of={}", "log.path=elsewhere"],
        "ctr: log.path: there is no impression log at elsewhere: write one there, or correct the path\n",
    ),
    "too few days": (
        nothing,
        ["log.eval_days=2"],
        "ctr: log.eval_days: the impression log has 2 day(s) with rows (1998-01-01 to 1998-01-02), too few ",
    ),
    "no calibration": (
        nothing,
        ["evaluation.min_calibration=1.2"],
        "ctr: evaluation: no model can be blessed: min_calibration 1.2 is above max_calibration 1.1",
    ),
    "no such day": (nothing, ["log.as_of=2026-02-30"], "ctr: log.as_of: there is no day 2026-02-30\n"),
    "column nearly one of the spec": (
        nothing,
        ["log.columns={itm_id: sku}"],
        "ctr: log.columns: schemas.movielens:MOVIELENS has no column itm_id; did you mean item_id?\n",
    ),
    "drift of nearly a feature": (
        nothing,
        ["drift.features={itm_id: {drift: 0.1}}"],
        "ctr: drift.features: schemas.movielens:MOVIELENS has no feature itm_id; did you mean item_id?\n",
    ),
    "id dropout of nearly a feature": (
        nothing,
        ["model.id_dropout_of={usr_id: 0.5}"],
        "ctr: model.id_dropout_of: schemas.movielens:MOVIELENS has no id feature usr_id; did you mean user_id?\n",
    ),
    "runs_dir is a file": (
        lambda: Path("file").touch(),
        ["runs_dir=file"],
        "ctr: runs_dir: cannot write to file/movielens: Not a directory\n",
    ),
    "runs_dir cannot be made": (
        nothing,
        ["runs_dir=/proc/nowhere"],
        "ctr: runs_dir: cannot write to /proc/nowhere/movielens: No such file or directory\n",
    ),
    "schema that is no text": (
        lambda: _write(Path("schema.pbtxt"), b"\xff\xfe"),
        ["schema_file=schema.pbtxt"],
        "ctr: schema_file: ",
    ),
    "logs is a file": (
        lambda: _write(Path("other/movielens/logs"), b""),
        ["runs_dir=other"],
        "ctr: runs_dir: cannot write to other/movielens/logs: File exists\n",
    ),
    "metadata store damaged": (
        lambda: _write(Path("other/movielens/metadata.sqlite"), b"nonsense" * 1000),
        ["runs_dir=other"],
        "ctr: the metadata store other/movielens/metadata.sqlite is damaged (file is not a database): restore it from ",
    ),
    "runs_dir is remote": (nothing, ["runs_dir=gs://bucket"], "ctr: runs_dir gs://bucket: `ctr run` writes to this "),
}


@pytest.mark.parametrize(("prepare", "arguments", "message"), BAD_RUNS.values(), ids=BAD_RUNS)
def test_a_run_that_cannot_succeed_is_one_sentence(
    log: Path, supervised: list[Any], prepare: Callable[[], None], arguments: list[str], message: str
) -> None:
    prepare()
    options = arguments if arguments[0] == "--config" else [f"--set={text}" for text in ["log.eval_days=1", *arguments]]
    sys.modules.pop("broken_spec", None)
    result = ctr("run", *options)
    assert result.exit_code == 1
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert supervised == []
    assert not Path("runs").exists()


def test_a_full_disk_is_one_sentence(log: Path, supervised: list[Any]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # a write fails as on a full disk, but for the reason
    try:
        result = ctr("run", "--set", "log.eval_days=1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (result.exit_code, result.stderr) == (1, "ctr: runs_dir: cannot write to runs/movielens: File too large\n")
    assert supervised == []


def test_several_problems_are_told_together(supervised: list[Any]) -> None:
    result = ctr("run", "--set", "features=x")
    assert result.exit_code == 1
    assert [line[:14] for line in result.stderr.splitlines()] == ["ctr: features ", "     log.path:"]


WORKER = '{"cluster": {"worker": %s}, "task": {"type": "worker", "index": %d}}'
TF_CONFIGS = {
    "broken": ("{oops", "ctr: TF_CONFIG is not JSON"),
    "a worker's": (WORKER % ('["a:1", "b:2"]', 1), "ctr: TF_CONFIG makes this process a worker"),
    "of three": (WORKER % ('["a:1", "b:2", "c:3"]', 0), "ctr: batch_size is 1024, which 3 workers cannot divide"),
}


@pytest.mark.parametrize(("tf_config", "told"), TF_CONFIGS.values(), ids=TF_CONFIGS.keys())
def test_workers_that_cannot_train_are_told_before_anything_runs(
    log: Path, supervised: list[Any], monkeypatch: pytest.MonkeyPatch, tf_config: str, told: str
) -> None:
    monkeypatch.setenv("TF_CONFIG", tf_config)
    result = ctr("run", "--set", "log.eval_days=1", "--set", "training.batch_size=1024")
    assert (result.exit_code, result.stderr[: len(told)], supervised) == (1, told, [])


def test_a_failed_run_has_status_1(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object, lock: int) -> None:
        raise RunFailedError("Trainer", "why", Path("the.log"))

    monkeypatch.setattr("pipeline.supervise.supervise", fail)
    result = ctr("run", "--set", "log.eval_days=1")
    assert (result.exit_code, result.stderr) == (1, "ctr: Trainer failed\n     why\n     log: the.log\n")


def test_a_bug_keeps_its_traceback(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.supervise.supervise", lambda _, lock: {}["a bug"])
    assert isinstance(ctr("run", "--set", "log.eval_days=1").exception, KeyError)


def test_ctrl_c_has_status_130(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object, lock: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.supervise.supervise", interrupt)
    result = ctr("run", "--set", "log.eval_days=1")
    assert (result.exit_code, result.stderr) == (130, "ctr: interrupted\n")


def test_an_output_that_cannot_be_written_is_one_line() -> None:
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "report", "--help"]
    with open("/dev/full", "wb") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "ctr: cannot write the output: No space left on device\n")


@pytest.mark.parametrize(
    "arguments", [["run", "--sett", "a=1"], ["zzz"], ["predict", "--input", "nowhere"], ["score"]], ids=" ".join
)
def test_wrong_usage_has_status_2(arguments: list[str]) -> None:
    result = ctr(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr


def write_log(
    directory: Path, progress: Callable[[str, int, int | None], None], *, wheel: Path | None
) -> ImpressionLog:
    if not directory.exists():
        progress("download", 0, None)
        progress("download", 1, 1)
        progress("write days", 0, 2)
        directory.mkdir()
        (directory / "wheel").write_text(str(wheel), encoding="utf-8")
    return ImpressionLog(1000, 600, 2, "1998-01-01", "1998-01-02")


def test_movielens_says_what_it_wrote_and_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.movielens.write_impression_log", write_log)
    rows = "1,000 rows, 600 of them clicks, on 2 days from 1998-01-01 to 1998-01-02, in here\n"
    first = ctr("data", "movielens", "--out", "here", "--wheel", "a.whl")
    assert (first.exit_code, first.stdout) == (0, f"written: {rows}")
    assert Path("here/wheel").read_text() == "a.whl"
    assert ctr("data", "movielens", "--out", "here").stdout == f"already there: {rows}"


def test_movielens_goes_where_the_config_looks(monkeypatch: pytest.MonkeyPatch, supervised: list[Any]) -> None:
    monkeypatch.setattr("pipeline.movielens.write_impression_log", write_log)
    Path("logs").mkdir()
    assert ctr("data", "movielens").exit_code == 0
    told = ctr("run").stderr
    assert told.startswith("ctr: log.path: the impression log logs/movielens is empty: ")
    assert "ctr data movielens" not in told


def test_movielens_errors_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MovieLensError("cannot download it")

    monkeypatch.setattr("pipeline.movielens.write_impression_log", fail)
    result = ctr("data", "movielens")
    assert (result.exit_code, result.stderr) == (1, "ctr: cannot download it\n")


def test_predict_without_a_pushed_model_is_one_sentence() -> None:
    result = ctr("predict", "--config", "criteo")
    assert result.exit_code == 1
    assert result.stderr == "ctr: no model in runs/criteo/serving: `ctr run` pushes one there once it is blessed\n"


def test_predict_takes_the_highest_version(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("9", "10", "tmp", "11.new"):
        (Path("runs/movielens/serving") / name).mkdir(parents=True)
    Path("runs/movielens/serving/12").touch()
    result = ctr("predict")
    assert result.exit_code == 1
    assert result.stderr.endswith("ctr: runs/movielens/serving/10 is not a SavedModel: it has no saved_model.pb\n")


def test_predict_prints_answers_and_counts_and_fails_if_a_line_did(monkeypatch: pytest.MonkeyPatch) -> None:
    def score(model: str, batches: Any, output: Any) -> Any:
        from pipeline.predict import Counts

        numbers = [json.loads(line) for batch in batches for line in batch]
        output.write(f"{model} {numbers}\n")
        return Counts(scored=numbers[0], failed=numbers[1])

    monkeypatch.setattr("pipeline.predict.load_model", str)
    monkeypatch.setattr("pipeline.predict.predict", score)
    good = CliRunner().invoke(main, ["predict", "--model", "m"], input="1000\n0\n")
    assert (good.exit_code, good.stdout, good.stderr) == (0, "m [1000, 0]\n", "1,000 scored, 0 failed, with m\n")
    Path("lines.jsonl").write_text("1\n2\n", encoding="utf-8")
    bad = ctr("predict", "--model", "m", "--input", "lines.jsonl")
    assert (bad.exit_code, bad.stdout, bad.stderr) == (1, "m [1, 2]\n", "1 scored, 2 failed, with m\n")


@pytest.fixture
def days_log(in_empty_folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = in_empty_folder / "logs" / "movielens"
    for day, num_rows in (("2026-01-01", 1), ("2026-01-02", 1), ("2026-01-03", 0), ("2026-01-05", 1)):
        (folder / f"day={day}").mkdir(parents=True)
        pq.write_table(pa.table({"label": [0] * num_rows}), folder / f"day={day}" / "part-0.parquet")
    return folder


def test_backfill_runs_each_day_that_has_rows_oldest_first(days_log: Path, supervised: list[Any]) -> None:
    settings = ("--set", "log.eval_days=1", "--set", "training.warm_start=true")
    result = ctr("backfill", "--from", "2026-01-02", "--to", "2026-01-09", *settings)
    assert result.exit_code == 0, result.output
    assert [config.log.as_of for config in supervised] == ["2026-01-02", "2026-01-05"]
    assert all(config.training.warm_start for config in supervised)
    assert result.output == "day 2026-01-02, 1 of 2\nday 2026-01-05, 2 of 2\n"


def test_backfill_stops_at_a_run_that_fails(days_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: Any, lock: int) -> None:
        raise RunFailedError("Trainer", f"no luck on {config.log.as_of}", Path("log"))

    monkeypatch.setattr("pipeline.supervise.supervise", fail)
    result = ctr("backfill", "--from", "2026-01-02", "--to", "2026-01-09", "--set", "log.eval_days=1")
    assert result.exit_code == 1
    assert "no luck on 2026-01-02" in result.output
    assert "2 of 2" not in result.output


def test_backfill_says_where_there_are_no_rows(days_log: Path, supervised: list[Any]) -> None:
    result = ctr("backfill", "--from", "2027-01-02", "--to", "2027-01-09", "--set", "log.eval_days=1")
    assert result.exit_code == 1
    assert "has no rows of the days from 2027-01-02 to 2027-01-09, or none of days before them" in result.output
    assert supervised == []


def test_backfill_says_where_the_days_are_the_wrong_way_round(days_log: Path, supervised: list[Any]) -> None:
    result = ctr("backfill", "--from", "2026-01-09", "--to", "2026-01-02")
    assert result.exit_code == 2
    assert "--from 2026-01-09 is after --to 2026-01-02" in result.output
    assert supervised == []


def test_backfill_begins_with_the_first_day_that_has_days_before_it(days_log: Path, supervised: list[Any]) -> None:
    result = ctr("backfill", "--from", "2026-01-01", "--to", "2026-01-02", "--set", "log.eval_days=1")
    assert result.exit_code == 0, result.output
    assert [config.log.as_of for config in supervised] == ["2026-01-02"]
    assert result.output.splitlines() == [
        "first day with rows, and with days before it to train on: 2026-01-02",
        "day 2026-01-02, 1 of 1",
    ]


def test_backfill_finds_a_flat_logs_days_and_a_spec_in_the_current_folder(
    in_empty_folder: Path, supervised: list[Any]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (in_empty_folder / "backfilled.py").write_text(
        "from schemas.features import FeatureSpec, NumericFeature\n"
        "SPEC = FeatureSpec('backfilled', (NumericFeature('x'),), timestamp='at')\n"
    )
    spec = FeatureSpec("backfilled", (NumericFeature("x"),), timestamp="at")
    (in_empty_folder / "schema.pbtxt").write_text(schema_text(spec))
    (in_empty_folder / "flat").mkdir()
    table = pa.table({"label": [0, 1, 0], "x": [1.0, 2.0, 3.0], "at": [0, 86_400, 3 * 86_400]})
    pq.write_table(table, in_empty_folder / "flat" / "part-0.parquet")
    settings = {
        "features": "backfilled:SPEC", "schema_file": "schema.pbtxt", "log.path": "flat", "log.eval_days": "1",
        "evaluation.slices": "[]", "model.id_dropout_of": "{}",
    }  # fmt: skip
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    result = ctr("backfill", "--from", "1970-01-02", "--to", "1970-01-31", *words)
    assert result.exit_code == 0, result.output
    assert [config.log.as_of for config in supervised] == ["1970-01-02", "1970-01-04"]


@pytest.mark.parametrize(
    "command", [["run"], ["backfill", "--from", "1998-01-01", "--to", "1998-01-02"], ["rollback"]], ids=" ".join
)
def test_a_pipeline_that_is_in_use_is_left_alone(log: Path, supervised: list[Any], command: list[str]) -> None:
    home = Path("runs/movielens")
    (home / "serving" / "7").mkdir(parents=True)
    with hold_lock(home):
        result = ctr(*command, "--set", "log.eval_days=1")
    assert result.exit_code == 1
    assert f"ctr: the pipeline movielens is in use by process {os.getpid()} on " in result.stderr
    assert supervised == []


def test_rollback_says_what_it_has_done(in_empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def roll_back(config: Any, to: int | None) -> Rollback:
        calls.append((config.name, to))
        return Rollback(9, 7, "root/Trainer/model/3", (8,))

    (in_empty_folder / "runs" / "movielens" / "serving" / "8").mkdir(parents=True)
    monkeypatch.setattr("pipeline.rollback.roll_back", roll_back)
    result = ctr("rollback", "--to", "7")
    assert (result.exit_code, calls) == (0, [("movielens", 7)])
    assert "version 9 is in service: a copy of 7, model root/Trainer/model/3\ntaken back: 8" in result.output


def test_rollback_without_a_pushed_model_says_so(in_empty_folder: Path) -> None:
    result = ctr("rollback")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no model in runs/movielens/serving" in result.stderr


def test_the_analyzer_cache_is_refused_for_a_flat_log(in_empty_folder: Path) -> None:
    (in_empty_folder / "flat").mkdir()
    (in_empty_folder / "flat" / "part-0.parquet").touch()
    result = ctr("run", "--set", "log.path=flat", "--set", "transform.analyzer_cache=true")
    assert result.exit_code == 1
    assert "transform.analyzer_cache: the impression log flat is flat" in result.output
    assert "write it in day=YYYY-MM-DD folders, or leave the cache off" in result.output
