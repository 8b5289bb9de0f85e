from __future__ import annotations

import json
import time

import pytest
from tfx.utils import io_utils

from components.model_pusher import versions
from components.model_pusher.versions import Source, digest, list_versions, prune, publish, read_source

SOURCE = Source(model_id=7, model_uri="root/Trainer/model/7", sha256="abc")


@pytest.fixture
def saved_model(tmp_path):
    folder = tmp_path / "Format-Serving"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"weights")
    return str(folder)


@pytest.fixture
def serving(tmp_path):
    return tmp_path / "serving"


def test_a_version_is_the_time_and_holds_the_model_and_where_it_is_from(saved_model, serving):
    before = int(time.time())
    version = publish(saved_model, str(serving), SOURCE)
    assert before <= version <= time.time()
    assert [path.name for path in serving.iterdir()] == [str(version)]
    assert (serving / str(version) / "variables" / "variables.index").read_bytes() == b"weights"
    assert read_source(str(serving), version) == SOURCE


def test_versions_grow_even_where_the_clock_goes_back(saved_model, serving):
    (serving / "99999999999").mkdir(parents=True)
    assert publish(saved_model, str(serving), SOURCE) == 100000000000
    assert publish(saved_model, str(serving), SOURCE) == 100000000001


def test_a_push_that_is_cut_off_shows_no_version_and_the_next_one_clears_it_away(saved_model, serving, monkeypatch):
    (serving / "5").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(versions.fileio, "rename", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            publish(saved_model, str(serving), SOURCE)
    assert list_versions(str(serving)) == [5]
    assert len([path for path in serving.iterdir() if path.name.startswith(".")]) == 1
    version = publish(saved_model, str(serving), SOURCE)
    assert sorted(path.name for path in serving.iterdir()) == sorted(["5", str(version)])


def test_an_object_store_gets_the_graph_last(saved_model, monkeypatch):
    written = []
    monkeypatch.setattr(versions, "list_versions", lambda _: [])
    monkeypatch.setattr(io_utils, "copy_dir", lambda src, dst, deny_regex_patterns: written.append((dst, src)))
    monkeypatch.setattr(io_utils, "write_string_file", lambda path, text: written.append((path, json.loads(text))))
    monkeypatch.setattr(io_utils, "copy_file", lambda src, dst: written.append((dst, src)))
    version = publish(saved_model, "gs://bucket/serving", SOURCE)
    target = f"gs://bucket/serving/{version}"
    assert [path for path, _ in written] == [target, f"{target}/assets.extra/source.json", f"{target}/saved_model.pb"]


def test_only_the_newest_versions_are_kept_and_other_files_stay(serving):
    for name in ("9", "10", "11", "notes"):
        (serving / name / "variables").mkdir(parents=True)
    assert prune(str(serving), keep=2) == [9]
    assert sorted(path.name for path in serving.iterdir()) == ["10", "11", "notes"]
    assert prune(str(serving), keep=5) == []
    assert list_versions(str(serving)) == [10, 11]


def test_a_missing_folder_has_no_versions(tmp_path):
    assert list_versions(str(tmp_path / "nowhere")) == []


def test_a_version_of_another_origin_has_no_source(serving):
    (serving / "5").mkdir(parents=True)
    assert read_source(str(serving), 5) is None


@pytest.mark.parametrize("text", ["", '{"model_id": 7', "\udcff", "[]", '{"colour": "red"}'])
def test_a_damaged_source_is_none(saved_model, serving, text):
    version = publish(saved_model, str(serving), SOURCE)
    (serving / str(version) / "assets.extra/source.json").write_text(text, errors="surrogateescape")
    assert read_source(str(serving), version) is None


def test_the_digest_is_of_names_and_contents(saved_model, tmp_path):
    before = digest(saved_model)
    assert digest(saved_model) == before
    copy = tmp_path / "elsewhere"
    io_utils.copy_dir(saved_model, str(copy))
    assert digest(str(copy)) == before
    (copy / "variables" / "variables.index").write_bytes(b"others")
    assert digest(str(copy)) != before
    (copy / "variables" / "variables.index").write_bytes(b"weights")
    (copy / "saved_model.pb").rename(copy / "other.pb")
    assert digest(str(copy)) != before
