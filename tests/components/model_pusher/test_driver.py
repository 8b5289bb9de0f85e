from __future__ import annotations

import pytest
from google.protobuf import json_format
from tfx.orchestration.portable.data_types import ExecutionInfo
from tfx.proto import pusher_pb2

from components.model_pusher.driver import Driver


@pytest.mark.parametrize(
    ("names", "newest"), [((), ""), (("9", "10", "assets"), "10"), ((".11.unfinished", "2"), "2")], ids=str
)
def test_the_newest_version_is_part_of_the_caches_key(names, newest, tmp_path):
    for name in names:
        (tmp_path / "serving" / name).mkdir(parents=True)
    destination = pusher_pb2.PushDestination()
    destination.filesystem.base_directory = str(tmp_path / "serving")
    info = ExecutionInfo(exec_properties={"push_destination": json_format.MessageToJson(destination)})
    added = Driver(None).run(info).exec_properties
    assert {name: value.string_value for name, value in added.items()} == {"in_service": newest}
