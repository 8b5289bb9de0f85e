from __future__ import annotations

import pathlib

import pytest

from components.impression_log_example_gen.columns import Column
from components.impression_log_example_gen.log import LogError, choose_window
from components.impression_log_example_gen.shards import Piece, Shard, plan_shards, split_pieces

A, B, C = (pathlib.Path(name) for name in "abc")


def _ranges(shard: Shard) -> list[tuple[str, int, int]]:
    return [(piece.file.name, piece.start, piece.stop) for piece in shard.pieces]


def test_files_are_cut_where_shards_end():
    shards = split_pieces("train", [Piece(A, 0, 1000), Piece(B, 0, 0), Piece(C, 0, 3000)])
    assert [_ranges(shard) for shard in shards] == [
        [("a", 0, 1000)],
        [("c", 0, 1000)],
        [("c", 1000, 2000)],
        [("c", 2000, 3000)],
    ]
    assert [shard.num_rows for shard in shards] == [1000] * 4
    assert [shard.file_name for shard in shards] == [f"data_tfrecord-0000{index}-of-00004.gz" for index in range(4)]


def test_one_shard_takes_several_files():
    (shard,) = split_pieces("eval", [Piece(A, 0, 2), Piece(B, 0, 3)])
    assert (_ranges(shard), shard.split) == ([("a", 0, 2), ("b", 0, 3)], "eval")


@pytest.mark.parametrize(
    ("num_rows", "num_shards"),
    [(1, 1), (1000, 1), (1001, 2), (3001, 4), (1_000_000, 4), (1_000_001, 5), (100_000_000, 400)],
)
def test_number_of_shards(num_rows, num_shards):
    shards = split_pieces("train", [Piece(A, 0, num_rows)])
    assert len(shards) == num_shards
    assert sum(shard.num_rows for shard in shards) == num_rows
    assert max(shard.num_rows for shard in shards) <= 250_000


def test_a_split_without_rows():
    with pytest.raises(LogError, match="the eval split has no rows"):
        split_pieces("eval", [Piece(A, 0, 0)])


def test_shards_of_a_log(log, write_day):
    for day in ("2026-01-01", "2026-01-02", "2026-01-03"):
        write_day(day, {"label": [0, 1]})
    shards = plan_shards(choose_window(log, 1, None), (Column("label", "int64", is_label=True),))
    assert [(shard.split, [piece.file.parent.name for piece in shard.pieces]) for shard in shards] == [
        ("train", ["day=2026-01-01", "day=2026-01-02"]),
        ("eval", ["day=2026-01-03"]),
    ]


def test_the_wrong_type_in_any_file_is_found(log, write_day):
    write_day("2026-01-01", {"label": [0]})
    write_day("2026-01-02", {"label": [0]})
    bad = write_day("2026-01-02", {"label": ["0"]}, name="part-1.parquet")
    with pytest.raises(LogError, match=f"^{bad}: column label is string"):
        plan_shards(choose_window(log, 1, None), (Column("label", "int64", is_label=True),))
