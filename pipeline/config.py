"""The configuration of a pipeline: one YAML file per data set, with `--set` overrides."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import pydantic
import pydantic_core
import yaml
from pydantic import Field
from pydantic.dataclasses import dataclass

from components.drift_gate.bounds import DriftBounds
from components.impression_log_example_gen.columns import TimestampUnit
from pipeline.beam import BeamConfig
from pipeline.kubeflow_config import KubeflowConfig
from schemas.features import FeatureSpec, NumericFeature
from trainer.config import NOT_WHEN_WARM, STRICT, ModelConfig, NonNegative, Positive, TrainingConfig
from trainer.hyperparameters import TunerConfig

CONFIGS = pathlib.Path(__file__).parent / "configs"
DEFAULT = CONFIGS / "movielens.yaml"
LocalPath = Annotated[str, pydantic.AfterValidator(os.path.expanduser)]


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says which key, why, and what to write instead."""


@dataclass(frozen=True, config=STRICT)
class LogConfig:
    """The impression log.

    Attributes:
        path: Folder with a `day=YYYY-MM-DD/` folder of files for each day, or with the files themselves, whose rows
            have the timestamp that the feature spec names. A file is Parquet, CSV, JSON lines or TFRecord, gzip or not.
        eval_days: The newest days in the log that have rows are the eval split: how many.
        train_days: The days before them are the training split: how many, or null for all.
        as_of: The newest day to use, YYYY-MM-DD, or null for the newest that has rows and is not in the future.
        columns: The log's names of the spec's columns that are named otherwise there, by the spec's names.
        timestamp_unit: What the log's timestamp counts since 1970-01-01 UTC: s, ms or us.
        key: The log's column that tells one impression from another, or null. Of rows with the same key all but the
            first are bad.
        max_raw_length: A row with a longer list is bad.
        max_bad_fraction: Which share of the rows, and of a split's, may be bad before a run fails.
    """

    path: LocalPath = "logs/movielens"
    eval_days: Positive = 1
    train_days: Positive | None = None
    as_of: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")] | None = None
    columns: dict[str, str] = dataclasses.field(default_factory=dict)
    timestamp_unit: TimestampUnit = "s"
    key: str | None = None
    max_raw_length: Positive = 10_000
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01


@dataclass(frozen=True, config=STRICT)
class DriftConfig:
    """How far the features may move between runs, and from training to eval. All distances are in the summary.

    Attributes:
        ids: Bounds of every id feature.
        numbers: Bounds of every number.
        features: Bounds of single features, or of the label, in place of these.
    """

    ids: DriftBounds = DriftBounds()
    numbers: DriftBounds = DriftBounds()
    features: dict[str, DriftBounds] = dataclasses.field(default_factory=dict)

    def bounds_of(self, spec: FeatureSpec) -> dict[str, DriftBounds]:
        """Returns the bounds of each feature and of the label, in the spec's order."""
        groups = {
            feature.name: self.numbers if isinstance(feature, NumericFeature) else self.ids for feature in spec.features
        }
        return groups | {spec.label.name: DriftBounds()} | self.features


@dataclass(frozen=True, config=STRICT)
class TransformConfig:
    """The transformation.

    Attributes:
        analyzer_cache: Whether what the analyzers of numbers have found of a day of a partitioned log is kept, and only
            new days are analyzed. It pays from some hundred thousand rows a day on: see docs/daily-training.md.
    """

    analyzer_cache: bool = False


def _distinct(slices: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    known: dict[frozenset[str], int] = {}
    for index, columns in enumerate(slices):
        if not columns:
            raise ValueError(f"the one at {index} has no column: all impressions are evaluated in any case")
        crossed = frozenset(columns)
        if len(crossed) < len(columns):
            raise ValueError(f"the one at {index} has a column twice: {', '.join(columns)}")
        if crossed in known:
            raise ValueError(f"the one at {index} is the one at {known[crossed]} again: {', '.join(columns)}")
        known[crossed] = index
    return slices


Slices = Annotated[tuple[tuple[str, ...], ...], pydantic.AfterValidator(_distinct)]


@dataclass(frozen=True, config=STRICT)
class EvaluationConfig:
    """What is measured on the eval split, and what a model needs to be blessed.

    Attributes:
        slices: Each a list of columns, of the log or derived (`<id>_new`, `<id>_colliding`, `<sequence>_length`,
            `time_of_day`, see components/evaluation/derived.py); metrics are computed for every combination of values.
        baseline: Whether the model in service is measured on the same impressions, and bounds the changes below. False
            for the run in which a feature goes or takes another form, without which that model would be measured.
        min_auc: Least AUC.
        max_log_loss: Greatest log loss, or null.
        min_calibration: Least sum of predictions over sum of labels.
        max_calibration: Greatest.
        max_auc_drop: By how much the AUC may be below that of the model in service on the same impressions, to the
            limit of the difference's 95% interval: what the eval split is too small to show counts against the model.
        max_normalized_entropy_rise: By how much the normalized entropy, which is the log loss over that of always
            predicting the mean label, may be above that model's, in the same way; or null.
        max_slice_auc_drop: By how much the AUC of a slice may be below that model's: more than that must be shown, by
            the whole interval, for among many slices some always look bad; or null.
        min_gate_examples: Slices with fewer examples are not held to that.
        min_slice_examples: Slices with fewer examples are left out of the results.
    """

    slices: Slices = ()
    baseline: bool = True
    min_auc: Annotated[float, Field(ge=0, le=1)] = 0.5
    max_log_loss: NonNegative | None = None
    min_calibration: NonNegative = 0.9
    max_calibration: NonNegative = 1.1
    max_auc_drop: NonNegative = 0.005
    max_normalized_entropy_rise: NonNegative | None = 0.01
    max_slice_auc_drop: NonNegative | None = 0.02
    min_gate_examples: Positive = 1000
    min_slice_examples: Positive = 1

    def __post_init__(self) -> None:
        if self.min_calibration > self.max_calibration:
            raise ValueError(
                f"no model can be blessed: min_calibration {self.min_calibration} is above max_calibration "
                f"{self.max_calibration}"
            )


@dataclass(frozen=True, config=STRICT)
class ServingCheckConfig:
    """What a model has to show in a process of its own before it is pushed; see `components/serving_check`.

    Attributes:
        num_examples: Impressions of the eval split that it is asked for.
        max_difference: How much two ctrs of one impression may differ: alone and in a batch, by another signature, in
            the Evaluator.
        max_p50_ms: Greatest median latency of one impression, in milliseconds.
        max_p99_ms: Greatest 99th percentile of it.
        max_size_mb: Greatest size of the model's files, in megabytes.
        timeout_seconds: After how long the check ends and fails.
        docker_image: TensorFlow Serving's image, such as `tensorflow/serving:2.19.1`, to be asked for the same in a
            container, where a Docker engine is at hand; null for the check without.
    """

    num_examples: Positive = 256
    max_difference: NonNegative = 1e-5
    max_p50_ms: Annotated[float, Field(gt=0)] = 20.0
    max_p99_ms: Annotated[float, Field(gt=0)] = 200.0
    max_size_mb: Annotated[float, Field(gt=0)] = 4000.0
    timeout_seconds: Annotated[float, Field(gt=0)] = 600.0
    docker_image: str | None = None


@dataclass(frozen=True, config=STRICT)
class PusherConfig:
    """What is kept in service.

    Attributes:
        keep_versions: How many of the newest versions stay in the serving folder, or null for all. With 1 there is none
            to roll back to.
    """

    keep_versions: Positive | None = 10


@dataclass(frozen=True, config=STRICT)
class PipelineConfig:
    """One pipeline.

    Attributes:
        name: Names the pipeline, and its folder below `runs_dir`.
        features: The feature spec, as `package.module:NAME`.
        schema_file: The curated TFMD schema; null for the one that comes with `features`' module, `<spec name>.pbtxt`.
        runs_dir: Folder of all pipelines' outputs.
        log: The impression log.
        drift: Bounds on how far features may move.
        transform: The transformation.
        model: The DeepFM.
        training: Its training.
        tuner: The search for better values of these two.
        evaluation: Metrics, slices and thresholds.
        serving_check: What a model has to show before it is pushed.
        pusher: The serving folder.
        beam: Where the Beam steps run.
        kubeflow: Where things are on Kubeflow Pipelines, and what each container gets.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")] = "movielens"
    features: str = "schemas.movielens:MOVIELENS"
    schema_file: LocalPath | None = None
    runs_dir: LocalPath = "runs"
    log: LogConfig = LogConfig()
    drift: DriftConfig = DriftConfig()
    transform: TransformConfig = TransformConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    tuner: TunerConfig = TunerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    serving_check: ServingCheckConfig = ServingCheckConfig()
    pusher: PusherConfig = PusherConfig()
    beam: BeamConfig = BeamConfig()
    kubeflow: KubeflowConfig = KubeflowConfig()


def load_config(path: pathlib.Path | None, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Reads a config file.

    Args:
        path: The file, or the name of a packaged one; None for the packaged `movielens`.
        overrides: Values to use in place of the file's, each `key.path=value` with the value in YAML.

    Raises:
        ConfigError: The file cannot be read, or a key or a value is wrong; one line for each problem.
    """
    return _overridden(_read_file(DEFAULT if path is None else path), overrides)


def with_overrides(config: PipelineConfig, overrides: Sequence[str]) -> PipelineConfig:
    """Returns the config with other values; see `load_config`.

    Args:
        config: The config.
        overrides: Values to use in place of the config's.
    """
    return _overridden(json.loads(config_to_json(config)), overrides)


def _overridden(tree: dict[str, Any], overrides: Sequence[str]) -> PipelineConfig:
    for override in overrides:
        _apply(override, tree)
    problems = list(_strange_values(tree))
    if problems:
        raise ConfigError("\n".join(problems))
    return config_from_json(json.dumps(tree))


def config_to_json(config: PipelineConfig) -> str:
    """Returns the config as JSON text, which `config_from_json` turns into an equal one."""
    return json.dumps(dataclasses.asdict(config))


def config_from_json(text: str) -> PipelineConfig:
    """Returns the config that is written in JSON.

    Raises:
        ConfigError: A key or a value is wrong; one line for each problem.
    """
    # JSON, because only there does strict validation take a list for a tuple.
    try:
        return pydantic.TypeAdapter(PipelineConfig).validate_json(text)
    except pydantic.ValidationError as error:
        raise ConfigError("\n".join(_describe(problem) for problem in error.errors())) from None


class _Loader(yaml.SafeLoader):
    """Scalars as in YAML 1.2: `1e-3` is a number; `on`, `010:30` and `2026-11-24` are text."""


_Loader.yaml_implicit_resolvers = {}
# The first match counts, so whole numbers come before the floats that they also are.
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+(_[0-9]+)*", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), _first)
# PyYAML's own takes a leading zero for octal.
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))


def _read_file(path: pathlib.Path) -> dict[str, Any]:
    packaged = {file.stem: file for file in CONFIGS.glob("*.yaml")}
    try:
        text = (path if path.is_file() else packaged.get(str(path), path)).read_bytes()
    except FileNotFoundError:
        beside = [str(file) for file in path.parent.glob("*.y*ml")]
        close = difflib.get_close_matches(str(path), beside, n=1) or difflib.get_close_matches(path.stem, packaged, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(f"config {path}: no such file; {hint}packaged are {', '.join(sorted(packaged))}") from None
    except OSError as error:
        raise ConfigError(f"config {path}: {error.strerror}") from None
    tree = _parse(text, f"config {path}")
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"config {path}: must hold keys and values, not {_show(tree)}")
    return tree


def _parse(text: str | bytes, source: str, key: str = "") -> Any:
    """Returns the value that is written in YAML; `source` and `key` say where, for the errors."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        _check_keys(node, key)
        return None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{source}{place}: {', '.join(filter(None, (error.context, error.problem)))}") from None
    except RecursionError:
        raise ConfigError(f"{source}: a value is nested too deeply, or part of itself") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:  # the last two: a wrong `!!tag`
        raise ConfigError(f"{source}: {_shorten(' '.join(str(error).split()), 200)}") from None


def _check_keys(node: yaml.Node | None, path: str) -> None:
    """Raises an error at a key that is not text, or that its mapping has twice: PyYAML lets the last one win."""
    if isinstance(node, yaml.SequenceNode):
        for index, element in enumerate(node.value):
            _check_keys(element, f"{path}[{index}]")
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(problem="a key is not text", problem_mark=key.start_mark)
            inner = f"{path}.{key.value}" if path else key.value
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{inner} is set twice", problem_mark=key.start_mark)
            seen.add(key.value)
            _check_keys(value, inner)


def _apply(override: str, tree: dict[str, Any]) -> None:
    """Puts the value of one `key.path=value` into the tree, in place."""
    key, equals, value = override.partition("=")
    *groups, name = (part.strip() for part in key.split("."))
    if not equals or not all([*groups, name]):
        raise ConfigError(f"--set {_shorten(override)}: write it as key.path=value, such as training.batch_size=2048")
    path = ".".join([*groups, name])
    parsed = _parse(value, f"--set {path}", path)
    group: Any = tree
    for depth, part in enumerate(groups):
        group = group.setdefault(part, {})
        if not isinstance(group, dict):
            raise ConfigError(f"--set {path}: {'.'.join(groups[: depth + 1])} is {_show(group)}, not a group of keys")
    group[name] = parsed


def _strange_values(value: Any, path: str = "") -> Iterator[str]:
    """Yields a sentence for each value that YAML can write and no key can take, such as `.nan` or `!!timestamp`."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _strange_values(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _strange_values(inner, f"{path}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{path} must be a finite number, not {value}"
    elif not isinstance(value, str | int | float | None):
        yield f"{path} must be a number, text, true, false, null or a list, not a {type(value).__name__}"


_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dataclass_type": "a group of keys",
    "dict_type": "a group of keys",
    "float_type": "a number",
    "greater_than": "greater than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_type": "text",
    "tuple_type": "a list",
}


def _describe(problem: pydantic_core.ErrorDetails) -> str:
    """Returns one of pydantic's errors as one sentence."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])[1:]
    if problem["type"] == "unexpected_keyword_argument":
        return f"unknown key {path}: {_suggestion(path)}"
    expected = _EXPECTED.get(problem["type"])
    if expected is None:
        return f"{path or 'config'}: {problem['msg'].removeprefix('Value error, ')}"
    return f"{path} must be {expected.format(**problem.get('ctx', {}))}, not {_show(problem['input'])}"


def _suggestion(path: str) -> str:
    """Returns what to write instead of an unknown key: the known key that is most like it, wherever that is."""
    tree = dataclasses.asdict(PipelineConfig())
    warm = {name: value for name, value in tree["training"].items() if name not in NOT_WHEN_WARM}
    known = [*_keys(tree), *_keys(warm, "training.when_warm.")]
    if path in known:
        return f"write {path.replace('.', ': {', 1)}: ...}}, one level for each dot"
    group = path.rpartition(".")[0]
    # The last part decides, so that a right name in the wrong group finds its group. Among equals the same group does,
    # and then the order: a setting comes before what the tuner tries it with.
    ranks = {key: (_likeness(_last(key), _last(path)), key.rpartition(".")[0] == group) for key in known}
    nearest = max(known, key=ranks.__getitem__)
    if ranks[nearest][0] >= 0.6:
        return f"did you mean {nearest}?"
    return f"known are {', '.join(key for key in known if key.rpartition('.')[0] == group)}"


def _keys(group: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in group.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _likeness(left: str, right: str) -> float:
    return difflib.SequenceMatcher(None, left, right).ratio()


def _show(value: Any) -> str:
    return _shorten(json.dumps(value, ensure_ascii=False, default=str))


def _shorten(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
