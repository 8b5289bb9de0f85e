"""Decides whether a model is pushed, and pushes it."""

from __future__ import annotations

import json
import os
from typing import Any

from absl import logging
from google.protobuf import json_format
from tfx.components.pusher.executor import Executor as TfxExecutor
from tfx.components.util import model_utils
from tfx.dsl.io import fileio
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils

from components.model_pusher import ROLLED_BACK
from components.model_pusher.versions import (
    Source,
    digest,
    list_versions,
    prune,
    publish,
    read_source,
    version_path,
)
from schemas.model_card import CARD_ASSET, EVALUATION_PROPERTY, card_markdown


class Executor(TfxExecutor):
    """TFX's Pusher executor, but for how it copies.

    TFX's own lets a version be seen before it is whole, pushes the same model twice where it is run twice, and keeps
    every version for ever.
    """

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes the model, unless there is a reason not to.

        Args:
            input_dict: `model`, and `model_blessing` and `infra_blessing` where the pipeline has them.
            output_dict: `pushed_model`, one PushedModel artifact. Its custom properties are TFX's (`pushed`,
                `pushed_destination`, `pushed_version`), and `not_pushed_because`, a sentence, where it is not pushed.
            exec_properties: `push_destination`, and `custom_config` with `keep_versions`, a number or null for all.

        Raises:
            OSError: The model cannot be copied. The serving folder is then as it was.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed = artifact_utils.get_single_instance(output_dict["pushed_model"])
        model = artifact_utils.get_single_instance(input_dict["model"])
        reason = find_objection(input_dict)
        if reason:
            logging.info("not pushed: %s", reason)
            self._MarkNotPushed(pushed)
            pushed.set_string_custom_property("not_pushed_because", reason)
            return
        destination = json_format.Parse(exec_properties["push_destination"], pusher_pb2.PushDestination())
        serving = destination.filesystem.base_directory
        saved_model = self.GetModelPath(input_dict)
        # The archive first: where the disk is full, the model is not yet in service.
        io_utils.copy_dir(saved_model, pushed.uri)
        complete_card(pushed.uri, input_dict.get("model_blessing") or [])
        version = push(pushed.uri, serving, Source(model.id, model.uri, digest(saved_model)))
        keep = json.loads(exec_properties["custom_config"])["keep_versions"]
        if keep is not None:
            logging.info("removed the versions %s, to keep %s", prune(serving, keep), keep)
        self._MarkPushed(pushed, pushed_destination=version_path(serving, version), pushed_version=str(version))


def complete_card(saved_model: str, blessings: list[Artifact]) -> None:
    """Writes what the Evaluator found, which no one knew at the export, into a model's card, where it has one.

    Args:
        saved_model: The SavedModel's folder.
        blessings: The ModelBlessing, or none.
    """
    file = os.path.join(saved_model, CARD_ASSET)
    found = [blessing.get_string_custom_property(EVALUATION_PROPERTY) for blessing in blessings]
    if not (found and found[0] and fileio.exists(file)):
        return
    with fileio.open(file) as source:
        card = json.load(source) | {"evaluation": json.loads(found[0])}
    io_utils.write_string_file(file, json.dumps(card, indent=2) + "\n")
    io_utils.write_string_file(file.removesuffix(".json") + ".md", card_markdown(card))


def find_objection(input_dict: dict[str, list[Artifact]]) -> str | None:
    """Returns why the model is not to be pushed, in a sentence; None where nothing is against it.

    Args:
        input_dict: The executor's inputs.
    """
    for model in input_dict["model"]:
        if model.get_string_custom_property(ROLLED_BACK):
            return f"it was rolled back at {model.get_string_custom_property(ROLLED_BACK)}"
    for blessing in input_dict.get("model_blessing") or []:
        if not model_utils.is_model_blessed(blessing):
            return "the Evaluator has not blessed it"
    for blessing in input_dict.get("infra_blessing") or []:
        if not model_utils.is_infra_validated(blessing):
            return "it has not passed the serving check"
    return None


def push(saved_model: str, serving: str, source: Source) -> int:
    """Makes a model the newest version, unless it is already: a push that is repeated adds none.

    Args:
        saved_model: The SavedModel's folder.
        serving: The serving folder.
        source: Which model it is.

    Returns:
        The version.
    """
    versions = list_versions(serving)
    newest = read_source(serving, versions[-1]) if versions else None
    if newest and newest.sha256 == source.sha256:
        logging.info("version %s is this model already", versions[-1])
        return versions[-1]
    return publish(saved_model, serving, source)
