from __future__ import annotations

import pytest
from google.protobuf import json_format
from tfx.proto import pusher_pb2
from tfx.types.standard_artifacts import PushedModel

from components.model_pusher.driver import Driver


@pytest.fixture
def key(model_in_store, tmp_path):
    def call():
        destination = pusher_pb2.PushDestination()
        destination.filesystem.base_directory = str(tmp_path / "serving")
        info = model_in_store.info(push_destination=json_format.MessageToJson(destination))
        added = Driver(model_in_store.connection).run(info).exec_properties
        return {name: value.string_value for name, value in added.items()}

    return call


@pytest.mark.parametrize(
    ("names", "newest"), [((), ""), (("9", "10", "assets"), "10"), ((".11.unfinished", "2"), "2")], ids=str
)
def test_the_newest_version_is_part_of_the_caches_key(names, newest, key, tmp_path):
    for name in names:
        (tmp_path / "serving" / name).mkdir(parents=True)
    assert key() == {"in_service": newest}


def test_a_version_that_a_person_has_removed_is_not_as_if_it_had_not_been_pushed_yet(key, model_in_store, tmp_path):
    before = key()
    model_in_store.make(PushedModel, pushed=0)
    assert key() == before
    version = tmp_path / "serving/7"
    version.mkdir(parents=True)
    pushed = model_in_store.make(PushedModel, pushed=1, pushed_version="7")
    assert key() == {"in_service": "7"}
    version.rmdir()
    assert key() == {"in_service": f" without PushedModel {pushed}"} != before
