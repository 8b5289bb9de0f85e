"""A training that goes on from an earlier model: its weights and its optimizer's slots, feature by feature.

The state stands beside a SavedModel, not in it: what is served has no use for it. It holds every variable under its
Keras path, and which rows of them belong to which feature. So a changed spec costs what has changed: a field whose
buckets are other ones starts cold, the others go on.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import logging
import math
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from schemas.features import Feature, IdField, NumericFeature
from trainer.model import DeepFM
from trainer.rows import RowTable

_LOGGER = logging.getLogger(__name__)

FOLDER = "training_state"
_VARIABLES, _LAYOUT = "variables.npz", "layout.json"
_SLOTS = "_slots"
_SLOTS_OF = "the optimizer's slots of "
_READ = np.float32(1e-30)  # too small a slot to change a step, and none of a row that no step has read
_RATE, _OF = "negative_sampling_rate", "of"
# Of the model's settings those without which nothing much goes on.
_SHAPE = ("embedding_dim", "hidden_units", "activation")
COLD, WARM, HANDED_ON = "a cold start", "a warm start", "an earlier cold start"  # whose state it is


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of a variable that belong to one feature.

    Attributes:
        owner: The feature, as a person would name it.
        first: Its first row.
        number: How many there are.
        meaning: What must be equal for the rows to mean the same, besides their shape.
    """

    owner: str
    first: int
    number: int
    meaning: str = ""


class Kept(NamedTuple):
    """Values that outlive a training: their shape, how they are read, and how they are given to another."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray[Any, Any]]
    assign: Callable[[np.ndarray[Any, Any]], None]


def save_state(
    model: DeepFM, directory: pathlib.Path, negative_sampling_rate: float = 1.0, is_warm: bool = False
) -> None:
    """Writes what a later training can go on from.

    Args:
        model: The model with the optimizer that trained it.
        directory: Folder to write.
        negative_sampling_rate: That of its training, which its logits go by.
        is_warm: Whether its training went on from an earlier one.
    """
    directory.mkdir(parents=True)
    variables = _variables(model)
    np.savez(directory / _VARIABLES, **{path: variable.read() for path, variable in variables.items()})
    blocks = {path: [dataclasses.asdict(rows) for rows in _blocks(path, model)] for path in variables}
    steps = int(_kept(model.optimizer.iterations).read())
    of = WARM if is_warm else COLD
    shape = {name: getattr(model.settings, name) for name in _SHAPE}
    layout = {"steps": steps, "blocks": blocks, _RATE: negative_sampling_rate, _OF: of, **shape}
    _write_layout(directory, layout)


def hand_on(
    model: DeepFM,
    earlier: pathlib.Path,
    cold: Sequence[str],
    directory: pathlib.Path,
    negative_sampling_rate: float = 1.0,
) -> None:
    """Writes the state that a model went on from for later trainings to go on from too.

    A state in which some of the model's weights had no counterpart is not handed on: they would start cold every time.
    There the model's own is written.

    Args:
        model: The model with the optimizer that trained it.
        earlier: What `save_state` wrote, or this function.
        cold: What had no counterpart there, see `warm_start`.
        directory: Folder to write.
        negative_sampling_rate: As in `save_state`.
    """
    if cold:
        _LOGGER.info("%s is not handed on: the features or the model's settings are other ones now", earlier)
        save_state(model, directory, negative_sampling_rate, is_warm=True)
    else:
        shutil.copytree(earlier, directory)
        layout = _read_layout(directory)
        if layout.get(_OF) == COLD:
            _write_layout(directory, layout | {_OF: HANDED_ON})


def read_steps(directory: pathlib.Path) -> int:
    """Returns the number of steps that led to an earlier training's state."""
    return int(_read_layout(directory)["steps"])


def read_shape(directory: pathlib.Path) -> dict[str, Any]:
    """Returns those settings of a state's model that are `_SHAPE`, as far as it says them."""
    layout = _read_layout(directory)
    return {name: layout[name] for name in _SHAPE if name in layout}


def read_origin(directory: pathlib.Path) -> str:
    """Returns whose state it is: its model's own, of a `COLD` or a `WARM` training, or `HANDED_ON`; "" if unknown."""
    return str(_read_layout(directory).get(_OF, ""))


def warm_start(model: DeepFM, directory: pathlib.Path, negative_sampling_rate: float = 1.0) -> tuple[str, ...]:
    """Gives a model and its optimizer an earlier training's state, as far as it fits.

    The logit of a training that sees a share r of the negatives is higher by -ln(r), see `trainer.train.logit_shift`.
    Where the earlier training saw another share, the bias is moved by the difference.

    Args:
        model: The model, with its optimizer built.
        directory: What `save_state` wrote.
        negative_sampling_rate: That of the training that begins.

    Returns:
        What has no counterpart there and starts cold, in words; slots only where the weights have one.
    """
    layout = _read_layout(directory)
    cold: dict[str, None] = {}  # in order, each once
    with np.load(directory / _VARIABLES) as earlier:
        for path, variable in _variables(model).items():
            blocks = _blocks(path, model)
            values = earlier.get(path)  # read from the file
            if values is None:
                missing = [rows.owner for rows in blocks] or [path]
            elif blocks:
                before = {rows["owner"]: Rows(**rows) for rows in layout["blocks"][path]}
                missing = list(_assign_rows(variable, blocks, values, before, is_slots=path.endswith(_SLOTS)))
            elif values.shape == variable.shape:
                missing = []
                variable.assign(values)
            else:
                missing = [path]
            if path.startswith(f"{model.optimizer.rest.name}/"):
                missing = [_SLOTS_OF + owner if blocks else "the optimizer's slots" for owner in missing]
            cold |= dict.fromkeys(missing)
        bias = model.logit_bias
        if bias is not None and bias.path in earlier:
            bias.assign_add([math.log(layout.get(_RATE, 1.0) / negative_sampling_rate)])
    model.optimizer.iterations.assign(layout["steps"])
    return tuple(
        owner for owner in cold if not owner.startswith(_SLOTS_OF) or owner.removeprefix(_SLOTS_OF) not in cold
    )


def _read_layout(directory: pathlib.Path) -> dict[str, Any]:
    layout: dict[str, Any] = json.loads((directory / _LAYOUT).read_text(encoding="utf-8"))
    return layout


def _write_layout(directory: pathlib.Path, layout: Mapping[str, Any]) -> None:
    (directory / _LAYOUT).write_text(json.dumps(layout), encoding="utf-8")


def _assign_rows(
    variable: Kept, blocks: list[Rows], earlier: np.ndarray[Any, Any], before: Mapping[str, Rows], *, is_slots: bool
) -> Iterator[str]:
    """Assigns the rows of the features that are what they were; yields the others.

    A table's slots that are another optimizer's are cold; but a row that has been read stays one: `_READ` in its slots.
    """
    values = variable.read().copy()
    fits = earlier.shape[1:] == values.shape[1:]
    origins: dict[int, int] = {}  # where the rows that several features share come from: from one of them
    for rows in blocks:
        source = before.get(rows.owner)
        is_same = source and dataclasses.replace(source, first=rows.first) == rows
        goes_on = source and is_same and origins.setdefault(rows.first, source.first) == source.first
        if source and goes_on and (fits or is_slots):
            found = earlier[source.first : source.first + source.number]
            values[rows.first : rows.first + rows.number] = found if fits else _READ * found.any(axis=1, keepdims=True)
        if not (goes_on and fits):
            yield rows.owner
    variable.assign(values)


def _kept(variable: keras.Variable) -> Kept:
    # Of one device, where it is mirrored.
    return Kept(tuple(variable.shape), lambda: tf.convert_to_tensor(variable.value).numpy(), variable.assign)


def _slots_of(table: RowTable) -> np.ndarray[Any, Any]:
    slots: np.ndarray[Any, Any] = table.slots().numpy()
    return slots


def _variables(model: DeepFM) -> dict[str, Kept]:
    """Returns what a training goes on from, by path: variables, and a table's rows and slots each by itself."""
    tables = {table.table.path: table for table in model.tables}
    # Seeds and the learning rate are this training's own; the number of steps is kept beside the variables.
    own = ("seed_generator_state", "learning_rate", "iteration")
    rest = model.optimizer.rest
    by_path = {variable.path: variable for variable in model.variables}
    numbers = itertools.count()
    for variable in rest.variables:
        # Keras numbers a variable without a name through its process, as Nadam's product of momentums.
        by_path[variable.path if "/" in variable.path else f"{rest.name}/{next(numbers)}"] = variable
    variables = {
        path: Kept(tables[path].shape, tables[path].numpy, tables[path].assign) if path in tables else _kept(variable)
        for path, variable in by_path.items()
        if path.rpartition("/")[2] not in own
    }
    for path, table in tables.items():
        variables[path + _SLOTS] = Kept(
            (table.shape[0], table.slot_width), functools.partial(_slots_of, table), table.assign_slots
        )
    return variables


def _blocks(path: str, model: DeepFM) -> list[Rows]:
    """Returns the features' rows of a variable; none for a variable whose rows belong to no feature."""
    fields, numbers = model.spec.id_fields, model.spec.numbers
    features = {feature.name: feature for feature in model.spec.features}
    # An optimizer's slots have their variable's path, in one word, within their own.
    name = path.replace("/", "_")
    for table in model.tables:
        rows, slots = table.table.path, table.table.path + _SLOTS
        if path in (rows, slots):
            of = _SLOTS_OF if path == slots else ""
            # With the row for unseen ids, which is the last.
            return [
                Rows(
                    f"{of}id field {field.name}",
                    field.row_offset + 1,
                    field.unseen,
                    _meaning(features[field.name], field),
                )
                for field in fields
            ]
    if "deepfm_numbers_kernel" in name or "deepfm_number_factors" in name:
        return [Rows(f"number {number.name}", row, 1, str(number.normalization)) for row, number in enumerate(numbers)]
    if model.deep_tower is not None and f"{model.deep_tower.layers[0].path.replace('/', '_')}_kernel" in name:
        dim = model.tables[0].shape[1] - 1 if model.tables else 0
        # The sum of a list's vectors is longer than their mean.
        inputs = [(field.name, dim, str(field.pooling) if field.max_length > 1 else "") for field in fields]
        inputs += [(number.name, 1, str(number.normalization)) for number in numbers]
        starts = itertools.accumulate((width for _, width, _ in inputs), initial=0)
        return [
            Rows(f"the deep tower's input {name}", start, width, meaning)
            for (name, width, meaning), start in zip(inputs, starts, strict=False)
        ]
    return []


def _meaning(feature: Feature, field: IdField) -> str:
    """Returns what a row of a field stands for."""
    if isinstance(feature, NumericFeature):
        return "quantile buckets"
    return f"{field.num_hashes} hashes of {feature.dtype} {field.hashing}"
