from __future__ import annotations

import json

import pytest
from google.protobuf import json_format
from tfx.proto import pusher_pb2
from tfx.types.standard_artifacts import InfraBlessing, Model, ModelBlessing, PushedModel

from components.model_pusher.executor import Executor, complete_card
from components.model_pusher.versions import list_versions, read_source
from schemas.model_card import CARD_ASSET, EVALUATION_PROPERTY


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "serving").mkdir()
    return tmp_path


@pytest.fixture
def push(folder):
    """Runs the executor on a model with the given content, and returns the PushedModel artifact."""

    def run(content="graph", *, keep=10, rolled_back="", blessed=True, infra=True):
        number = len(list(folder.glob("model*"))) + 1
        model, blessing, infra_blessing, pushed = Model(), ModelBlessing(), InfraBlessing(), PushedModel()
        model.id, model.uri = number, str(folder / f"model{number}")
        saved_model = folder / f"model{number}" / "Format-Serving"
        saved_model.mkdir(parents=True)
        (saved_model / "saved_model.pb").write_text(content)
        if rolled_back:
            model.set_string_custom_property("rolled_back", rolled_back)
        blessing.set_int_custom_property("blessed", int(blessed))
        infra_blessing.set_string_custom_property("blessing_status", "INFRA_BLESSED" if infra else "INFRA_NOT_BLESSED")
        infra_blessing.set_int_custom_property("blessed", int(infra))
        pushed.uri = str(folder / f"pushed{number}")
        destination = pusher_pb2.PushDestination()
        destination.filesystem.base_directory = str(folder / "serving")
        properties = {
            "push_destination": json_format.MessageToJson(destination),
            "custom_config": json.dumps({"keep_versions": keep}),
        }
        inputs = {"model": [model], "model_blessing": [blessing], "infra_blessing": [infra_blessing]}
        Executor().Do(inputs, {"pushed_model": [pushed]}, properties)
        return pushed

    return run


def test_a_version_has_what_the_evaluator_found_in_its_card(tmp_path):
    card = tmp_path / CARD_ASSET
    card.parent.mkdir(parents=True)
    card.write_text(json.dumps({"data_set": "shop", "evaluation": None, "limits": ["x"]}))
    blessing = ModelBlessing()
    found = {"examples": 9, "metrics": {"auc": 0.75}, "gates": ["auc is 0.75, must be at least 0.5"]}
    blessing.set_string_custom_property(EVALUATION_PROPERTY, json.dumps(found))
    complete_card(str(tmp_path), [blessing])
    assert json.loads(card.read_text()) == {"data_set": "shop", "evaluation": found, "limits": ["x"]}
    assert "- Auc: 0.75" in card.with_suffix(".md").read_text()
    assert "must be at least 0.5" in card.with_suffix(".md").read_text()


def test_a_card_stays_as_it_is_where_nothing_was_evaluated(tmp_path):
    card = tmp_path / CARD_ASSET
    card.parent.mkdir(parents=True)
    card.write_text('{"data_set": "shop", "evaluation": null}')
    complete_card(str(tmp_path), [ModelBlessing()])
    complete_card(str(tmp_path), [])
    assert card.read_text() == '{"data_set": "shop", "evaluation": null}'
    complete_card(str(tmp_path / "without"), [ModelBlessing()])
    assert not (tmp_path / "without").exists()


def _versions(folder):
    return list_versions(str(folder / "serving"))


def test_a_blessed_model_is_pushed_and_archived(push, folder):
    pushed = push()
    (version,) = _versions(folder)
    assert pushed.get_int_custom_property("pushed") == 1
    assert pushed.get_string_custom_property("pushed_version") == str(version)
    assert pushed.get_string_custom_property("pushed_destination") == str(folder / "serving" / str(version))
    assert (folder / "serving" / str(version) / "saved_model.pb").read_text() == "graph"
    assert (folder / "pushed1" / "saved_model.pb").read_text() == "graph"
    source = read_source(str(folder / "serving"), version)
    assert (source.model_id, source.model_uri, source.restored_from) == (1, str(folder / "model1"), None)


@pytest.mark.parametrize(
    ("reason", "settings"),
    [
        ("the Evaluator has not blessed it", {"blessed": False}),
        ("it has not passed the serving check", {"infra": False}),
        ("it was rolled back at 2026-11-24", {"rolled_back": "2026-11-24"}),
    ],
)
def test_what_is_not_to_be_pushed_is_not_and_the_reason_is_kept(push, folder, reason, settings):
    before = push("earlier").get_string_custom_property("pushed_destination")
    pushed = push(**settings)
    assert pushed.get_int_custom_property("pushed") == 0
    assert pushed.get_string_custom_property("not_pushed_because") == reason
    assert [str(folder / "serving" / str(version)) for version in _versions(folder)] == [before]


def test_the_same_model_again_makes_no_other_version(push, folder):
    first, second = push("graph"), push("graph")
    assert len(_versions(folder)) == 1
    assert second.get_string_custom_property("pushed_version") == first.get_string_custom_property("pushed_version")
    push("other")
    push("graph")
    assert len(_versions(folder)) == 3


def test_older_versions_than_the_newest_few_are_removed(push, folder):
    newest = [push(str(number), keep=2).get_string_custom_property("pushed_version") for number in range(4)][-2:]
    assert [str(version) for version in _versions(folder)] == newest
    for number in range(4):
        push(f"more {number}", keep=None)
    assert len(_versions(folder)) == 6
