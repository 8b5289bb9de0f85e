from __future__ import annotations

import pathlib
import time

import pytest

from components.impression_log_example_gen.log import LogError
from components.impression_log_example_gen.portions import Days, Piece, cut, plan_portions
from components.impression_log_example_gen.window import choose_window

A, B, C = (pathlib.Path(name) for name in "abc")


def _counted(file, num_rows):
    return Piece(file, 0, num_rows, num_rows)


def _ranges(groups):
    return [[(piece.file.name, piece.start, piece.stop) for piece in group] for group in groups]


def test_counted_files_are_cut_where_portions_end():
    groups = cut([_counted(A, 1000), _counted(B, 0), _counted(C, 3000)])
    assert _ranges(groups) == [[("a", 0, 1000)], [("c", 0, 1000)], [("c", 1000, 2000)], [("c", 2000, 3000)]]


def test_files_whose_rows_nobody_has_counted_stay_whole():
    groups = cut([_counted(A, 1500), Piece(B, 0, None, 1500), Piece(C, 0, None, 1000)])
    assert _ranges(groups) == [[("a", 0, 1000)], [("a", 1000, 1500), ("b", 0, None)], [("c", 0, None)]]


def test_one_portion_takes_several_files():
    assert _ranges(cut([_counted(A, 2), _counted(B, 3)])) == [[("a", 0, 2), ("b", 0, 3)]]


def test_many_files_are_cut_in_one_pass_over_them():
    files = [_counted(A, 250_000) for _ in range(20_000)]
    start = time.process_time()
    groups = cut(files)
    assert time.process_time() - start < 5  # where each portion looked at each file: minutes
    assert [piece.size for group in groups for piece in group] == [250_000] * 20_000


@pytest.mark.parametrize(
    ("num_rows", "num_portions"),
    [(1, 1), (1000, 1), (1001, 2), (3001, 4), (1_000_000, 4), (1_000_001, 5), (100_000_000, 400)],
)
def test_number_of_portions(num_rows, num_portions):
    groups = cut([_counted(A, num_rows)])
    sizes = [piece.size for group in groups for piece in group]
    assert (len(groups), sum(sizes)) == (num_portions, num_rows)
    assert max(sizes) <= 250_000


def test_portions_of_a_log_are_numbered_in_its_order(log, write, make_row):
    for day in ("2026-01-01", "2026-01-02", "2026-01-03"):
        write(f"day={day}/a.parquet", [make_row(1), make_row(2)])
    portions = plan_portions(choose_window(log, 1, None))
    assert [
        (portion.split, portion.index, [piece.file.parent.name for piece in portion.pieces]) for portion in portions
    ] == [
        ("train", 0, ["day=2026-01-01", "day=2026-01-02"]),
        ("eval", 1, ["day=2026-01-03"]),
    ]


def test_a_split_whose_files_were_emptied(log, write, make_row):
    for day in ("2026-01-01", "2026-01-02"):
        write(f"day={day}/a.parquet", [make_row(1)])
    window = choose_window(log, 1, None)
    write("day=2026-01-02/a.parquet", [])
    with pytest.raises(LogError, match="the eval split has no rows: its days were emptied since the run began"):
        plan_portions(window)


def test_of_a_flat_logs_file_in_both_splits_one_takes_the_rows_without_a_day(log, write, make_row):
    from components.impression_log_example_gen.columns import Column

    write("a.csv", [make_row(1, time=day * 86_400) for day in (1, 2, 3)])
    window = choose_window(
        log, 1, None, timestamp=Column("time", "int64", is_required=True, gives_day=True, per_second=1)
    )
    pieces = [piece for portion in plan_portions(window) for piece in portion.pieces]
    assert [piece.days for piece in pieces] == [Days(1, 2, with_undated=True), Days(3, 3, with_undated=False)]


def test_portions_by_day_are_the_same_in_every_window(log, write, make_row):
    for day in ("2026-01-01", "2026-01-02", "2026-01-03"):
        write(f"day={day}/a.parquet", [make_row(1), make_row(2)])
    portions = plan_portions(choose_window(log, 1, None), by_day=True)
    assert [(portion.split, portion.day) for portion in portions] == [
        ("train", "2026-01-01"),
        ("train", "2026-01-02"),
        ("eval", "2026-01-03"),
    ]
    later = plan_portions(choose_window(log, 1, 1), by_day=True)
    assert [portion.pieces for portion in later] == [portion.pieces for portion in portions[1:]]
