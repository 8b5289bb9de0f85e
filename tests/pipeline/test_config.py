from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.drift_gate.bounds import DriftBounds
from pipeline.config import CONFIGS, ConfigError, PipelineConfig, config_from_json, config_to_json, load_config
from schemas.movielens import MOVIELENS


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    file = folder / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "")) == PipelineConfig()


def test_a_file_sets_what_it_names(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "training:\n  batch_size: 8\nbeam: {workers: 2, args: [--x]}\n"))
    assert config.training.batch_size == 8
    assert (config.beam.workers, config.beam.args) == (2, ("--x",))
    assert config.training.max_epochs == PipelineConfig().training.max_epochs


def test_no_file_is_the_packaged_movielens() -> None:
    config = load_config(None)
    assert (config.name, config.features) == ("movielens", "schemas.movielens:MOVIELENS")
    assert config.evaluation.slices[:3] == (("gender",), ("occupation",), ("genres",))


def test_a_packaged_config_goes_by_its_name(in_empty_folder: Path) -> None:
    assert load_config(Path("criteo")).features == "schemas.criteo:CRITEO"


def test_a_file_goes_before_a_packaged_config(in_empty_folder: Path) -> None:
    Path("criteo").write_text("name: mine", encoding="utf-8")
    assert load_config(Path("criteo")).name == "mine"


def test_a_folder_does_not_hide_a_packaged_config(in_empty_folder: Path) -> None:
    Path("criteo").mkdir()
    assert load_config(Path("criteo")).name == "criteo"


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_each_packaged_config_loads_and_is_named_like_its_file(file: Path) -> None:
    assert load_config(file).name == file.stem


@pytest.mark.parametrize(
    ("override", "group", "key", "value"),
    [
        pytest.param("training.learning_rate=1e-3", "training", "learning_rate", 0.001, id="exponent without a dot"),
        pytest.param("training.learning_rate=1", "training", "learning_rate", 1.0, id="whole number for a float"),
        pytest.param("training.shuffle_buffer=100_000", "training", "shuffle_buffer", 100_000, id="underscore"),
        pytest.param("training.seed=010", "training", "seed", 10, id="leading zero is not octal"),
        pytest.param("log.timestamp_unit=ms", "log", "timestamp_unit", "ms", id="word"),
        pytest.param("model.hidden_units=[4, 2]", "model", "hidden_units", (4, 2), id="list"),
        pytest.param("evaluation.slices=[[a, b], [c]]", "evaluation", "slices", (("a", "b"), ("c",)), id="nested list"),
        pytest.param("log.path=2026-11-24", "log", "path", "2026-11-24", id="a date is text"),
        pytest.param("log.path=on", "log", "path", "on", id="on is text"),
        pytest.param("log.path=a=b", "log", "path", "a=b", id="equals sign in the value"),
        pytest.param("log.train_days=null", "log", "train_days", None, id="null"),
        pytest.param("log.as_of=2026-11-24", "log", "as_of", "2026-11-24", id="a day"),
        pytest.param("log.columns={item_id: sku}", "log", "columns", {"item_id": "sku"}, id="a group of names"),
        pytest.param(" log . train_days = 3", "log", "train_days", 3, id="spaces"),
    ],
)
def test_an_override_sets_its_key(override: str, group: str, key: str, value: object) -> None:
    found = getattr(getattr(load_config(None, [override]), group), key)
    assert found == value
    assert type(found) is type(value)


def test_an_override_goes_before_the_file_and_the_last_one_wins(tmp_path: Path) -> None:
    file = write(tmp_path, "training: {batch_size: 8, seed: 5}")
    config = load_config(file, ["training.batch_size=9", "training.batch_size=10"])
    assert (config.training.batch_size, config.training.seed) == (10, 5)


BAD_OVERRIDES = {
    "typo": ("training.batch_sise=5", r"^unknown key training\.batch_sise: did you mean training\.batch_size\?$"),
    "no group": ("batch_size=5", r"^unknown key batch_size: did you mean training\.batch_size\?$"),
    "wrong group": ("training.dropout=0.1", r"^unknown key training\.dropout: did you mean model\.dropout\?$"),
    "a setting before what the tuner tries": ("learning_rate=1", r": did you mean training\.learning_rate\?$"),
    "what the tuner tries": ("tuner.learning_rat=[1]", r": did you mean tuner\.learning_rate\?$"),
    "one value for the tuner": ("tuner.dropout=0.1", r"^tuner\.dropout must be a list, not 0\.1$"),
    "inside the tuner's lists": ("tuner.hidden_units=[[1, a]]", r"^tuner\.hidden_units\[0\]\[1\] must be a whole "),
    "bad value for the tuner": ("tuner.dropout=[0, 1]", r"^tuner\.dropout\[1\] must be less than 1, not 1$"),
    "typo in the group": ("trainig.seed=1", r"^unknown key trainig: did you mean training\?$"),
    "unlike any": (
        "log.zzz=1",
        r"^unknown key log\.zzz: known are log\.path, log\.eval_days, log\.train_days, log\.as_of, ",
    ),
    "typo of a warm training": (
        "training.when_warm.max_epoch=1",
        r"^unknown key training\.when_warm\.max_epoch: did you mean training\.when_warm\.max_epochs\?$",
    ),
    "typo of what a warm training cannot have": (
        "training.when_warm.warm_strt=true",
        r"^unknown key training\.when_warm\.warm_strt: did you mean training\.warm_start\?$",
    ),
    "what the state is a part of": (
        "training={warm_start: true, when_warm: {table_optimizer: adagrad}}",
        r"^training\.when_warm: table_optimizer cannot be another in a warm training$",
    ),
    "bad value for a warm training": (
        "training={warm_start: true, when_warm: {batch_size: 0}}",
        r"^training\.when_warm\.batch_size must be greater than 0, not 0$",
    ),
    "a warm training that is not": (
        "training={warm_start: true, when_warm: {warm_start: false}}",
        r"^training\.when_warm: warm_start cannot be another in a warm training$",
    ),
    "a warm training's settings that do not go together": (
        "training={warm_start: true, reduce_on_plateau: 0.5, when_warm: {warmup_steps: 3}}",
        r"^training: with when_warm: reduce_on_plateau does not go with warmup_steps or decay_steps: use one or",
    ),
    "a warm training without warm starts": (
        "training.when_warm.max_epochs=1",
        r"^training: when_warm means nothing without warm_start: true; for one training that starts cold, set warm",
    ),
    "text for a number": ('training.seed="8"', r'^training\.seed must be a whole number, not "8"$'),
    "true for a number": ("training.seed=true", r"^training\.seed must be a whole number, not true$"),
    "float for a whole number": ("training.seed=8.0", r"^training\.seed must be a whole number, not 8\.0$"),
    "number for text": ("log.path=3", r"^log\.path must be text, not 3$"),
    "nothing for text": ("log.path=", r"^log\.path must be text, not null$"),
    "too small": ("training.batch_size=0", r"^training\.batch_size must be greater than 0, not 0$"),
    "too great": ("evaluation.min_auc=2", r"^evaluation\.min_auc must be at most 1, not 2$"),
    "below the least": ("model.dropout=-.5", r"^model\.dropout must be at least 0, not -0\.5$"),
    "at the bound": ("model.dropout=1", r"^model\.dropout must be less than 1, not 1$"),
    "choice": ("training.monitor=loss", r"^training\.monitor must be 'auc' or 'log_loss', not \"loss\"$"),
    "pattern": ("name=My Model", r'^name must be text that matches .*, not "My Model"$'),
    "inside a list": ("model.hidden_units=[1, a]", r'^model\.hidden_units\[1\] must be a whole number, not "a"$'),
    "text for a list": ("evaluation.slices=[gender]", r'^evaluation\.slices\[0\] must be a list, not "gender"$'),
    "a slice of no column": (
        "evaluation.slices=[[a], []]",
        r"^evaluation\.slices: the one at 1 has no column: all impressions are evaluated in any case$",
    ),
    "a column twice": ("evaluation.slices=[[a, a]]", r"^evaluation\.slices: the one at 0 has a column twice: a, a$"),
    "a slice twice": (
        "evaluation.slices=[[a, b], [c], [b, a]]",
        r"^evaluation\.slices: the one at 2 is the one at 0 again: b, a$",
    ),
    "not a day": ("log.as_of=yesterday", r'^log\.as_of must be text that matches .*, not "yesterday"$'),
    "list for a group of names": ("log.columns=[a]", r"^log\.columns must be a group of keys, not \[\"a\"\]$"),
    "number for a name": ("log.columns.item_id=3", r"^log\.columns\.item_id must be text, not 3$"),
    "above a share": ("log.max_bad_fraction=1.5", r"^log\.max_bad_fraction must be at most 1, not 1\.5$"),
    "value for a group": ("training=3", r"^training must be a group of keys, not 3$"),
    "nothing for a group": ("training=", r"^training must be a group of keys, not null$"),
    "nan": ("training.learning_rate=.nan", r"^training\.learning_rate must be a finite number, not nan$"),
    "infinity": ("evaluation.max_log_loss=.inf", r"^evaluation\.max_log_loss must be a finite number, not inf$"),
    "tagged date": ("log.path=!!timestamp 2026-11-24", r"^log\.path must be a number, text, .*, not a date$"),
    "tagged bytes": ("log.path=!!binary aGk=", r"^log\.path must be a number, text, .*, not a bytes$"),
    "wrong tag": ("log.path=!!bool x", r"^--set log\.path: "),
    "no equals sign": ("training.seed", r"^--set training\.seed: write it as key\.path=value, such as "),
    "no key": ("=3", r"^--set =3: write it as key\.path=value, such as "),
    "gap in the key": ("training..seed=3", r"^--set training\.\.seed=3: write it as key\.path=value, such as "),
    "syntax": ("log.path=[a", r"^--set log\.path, line 1, column 3: "),
    "repeated key": ("log={path: a, path: b}", r"^--set log, line 1, column 11: log\.path is set twice$"),
    "key is no text": ("log={1: a}", r"^--set log, line 1, column 2: a key is not text$"),
    "too deep": ("log.path=" + "[" * 3000, r"^--set log\.path: a value is nested too deeply"),
    "part of itself": ("log.path=&x [*x]", r"^--set log\.path: a value is nested too deeply, or part of itself$"),
    "lone surrogate": ("log.path=\udcff", r"^--set log\.path: "),
    "escaped lone surrogate": ('log.path="\\udcff"', r"^config: Invalid JSON: "),
    "too many digits": ("training.seed=" + "9" * 5000, r"^--set training\.seed: Exceeds the limit"),
}


@pytest.mark.parametrize(("override", "message"), BAD_OVERRIDES.values(), ids=BAD_OVERRIDES)
def test_a_bad_override_is_one_sentence(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        load_config(None, [override])
    assert len(str(raised.value)) < 300
    assert "\n" not in str(raised.value)


def test_an_override_of_a_key_below_a_value_says_so() -> None:
    with pytest.raises(ConfigError, match=r"^--set log\.path: log is 3, not a group of keys$"):
        load_config(None, ["log=3", "log.path=x"])


BAD_FILES = {
    "list": ("- a\n", r'^config \S+config\.yaml: must hold keys and values, not \["a"\]$'),
    "syntax": ("name: a\nlog: [\n", r"^config \S+config\.yaml, line 3, column 1: .*expected the node content"),
    "tab": ("log:\n\tpath: a\n", r"^config \S+config\.yaml, line 2, column 1: .*'\\t'"),
    "two documents": ("name: a\n---\nname: b\n", r"^config \S+config\.yaml, line 2, column 1: .*another document"),
    "repeated key": (
        "log:\n  path: a\n  path: b\n",
        r"^config \S+config\.yaml, line 3, column 3: log\.path is set twice",
    ),
    "repeated group": ("log: {}\nlog: {}\n", r"^config \S+config\.yaml, line 2, column 1: log is set twice$"),
    "repeated in a list": (
        "a: [{b: 1, b: 2}]\n",
        r"^config \S+config\.yaml, line 1, column 12: a\[0\]\.b is set twice",
    ),
    "dotted key": ("training.seed: 5\n", r"^unknown key training\.seed: write training: \{seed: \.\.\.\}, one level "),
    "empty group": ("training:\n", r"^training must be a group of keys, not null$"),
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        load_config(write(tmp_path, text))
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(b"name: \x80")
    with pytest.raises(ConfigError, match=r"^config \S+config\.yaml: unacceptable character"):
        load_config(file)


def test_several_problems_have_a_line_each(tmp_path: Path) -> None:
    file = write(tmp_path, "log: {train_days: 0}\nmodel: {embedding_dim: no}\nfoo: 1\n")
    with pytest.raises(ConfigError) as raised:
        load_config(file)
    lines = sorted(str(raised.value).splitlines())
    assert lines[0] == "log.train_days must be greater than 0, not 0"
    assert lines[1] == 'model.embedding_dim must be a whole number, not "no"'
    assert lines[2].startswith("unknown key foo: known are name, features, ")
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("critoe", r"^config critoe: no such file; did you mean criteo\? packaged are criteo, movielens$"),
        ("mine/critoe.yaml", r"^config mine/critoe\.yaml: no such file; did you mean criteo\? packaged are "),
        ("zzz", r"^config zzz: no such file; packaged are criteo, movielens$"),
        (".", r"^config \.: Is a directory$"),
        ("a" * 5000, r"^config a+: File name too long$"),
    ],
)
def test_a_missing_file_is_one_sentence(in_empty_folder: Path, path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(Path(path))


def test_the_name_of_a_config_that_is_not_there_is_compared_with_what_is(tmp_path):
    (tmp_path / "shop.yaml").touch()
    with pytest.raises(
        ConfigError, match=rf"^config {tmp_path}/shop\.yml: no such file; did you mean {tmp_path}/shop\.yaml\?"
    ):
        load_config(tmp_path / "shop.yml")


def test_a_path_below_the_home_folder_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = load_config(None, ["runs_dir=~/runs", "log.path=~/logs/shop", "schema_file=~/shop.pbtxt"])
    found = (config.runs_dir, config.log.path, config.schema_file)
    assert found == tuple(f"{tmp_path}/{name}" for name in ("runs", "logs/shop", "shop.pbtxt"))
    assert load_config(None, ["runs_dir=gs://bucket//runs"]).runs_dir == "gs://bucket//runs"


def test_json_is_an_exact_round_trip() -> None:
    config = load_config(
        None,
        [
            "training.learning_rate=0.1e-2",
            "model.dropout=0.30000000000000004",
            "log.path=ünï/\u2713",
            "evaluation.slices=[[a, b], [c]]",
            "beam.args=[--x=1]",
        ],
    )
    text = config_to_json(config)
    assert config_from_json(text) == config
    assert json.loads(text)["model"]["dropout"] == 0.30000000000000004


def test_json_that_is_none_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"^config: Invalid JSON"):
        config_from_json("{")


def test_drift_bounds_are_a_features_own_or_its_groups() -> None:
    config = load_config(
        None,
        [
            "drift.ids={drift: 0.1, action: block}",
            "drift.numbers.skew=0.2",
            "drift.features={item_id: {skew: 0.3}, label: {drift: 0.4}}",
        ],
    )
    bounds = config.drift.bounds_of(MOVIELENS)
    assert list(bounds) == [*(feature.name for feature in MOVIELENS.features), "label"]
    assert bounds["user_id"] == DriftBounds(drift=0.1, action="block")
    assert bounds["item_id"] == DriftBounds(skew=0.3)
    assert bounds["age"] == DriftBounds(skew=0.2)
    assert bounds["label"] == DriftBounds(drift=0.4)


def test_a_drift_bound_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"drift\.ids\.drift must be at most 1, not 7"):
        load_config(None, ["drift.ids.drift=7"])
    with pytest.raises(ConfigError, match=r"drift\.ids\.action must be 'warn' or 'block', not \"stop\""):
        load_config(None, ["drift.ids.action=stop"])
    with pytest.raises(
        ConfigError, match=r"^drift\.ids: action: block means nothing without a bound: set drift or skew$"
    ):
        load_config(None, ["drift.ids.action=block"])
    assert load_config(None, ["drift.ids={action: block, skew: 0}"]).drift.ids.action == "block"
