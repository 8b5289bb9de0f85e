from __future__ import annotations

from collections import defaultdict

import pytest

from pipeline.movielens_context import Rating, Tally, with_context

NO_GENRES: defaultdict[int, list[str]] = defaultdict(list)


@pytest.mark.parametrize(
    ("ratings", "histories"),
    [
        pytest.param(
            [Rating(10, 1, 5, 1), Rating(11, 1, 6, 0), Rating(12, 1, 7, 1)],
            {5: [], 6: [5], 7: [5]},
            id="a rating without a click enters no history",
        ),
        pytest.param(
            [Rating(10, 1, 5, 1), Rating(10, 1, 4, 1), Rating(11, 1, 3, 1)],
            {4: [], 5: [], 3: [4, 5]},
            id="ratings of one second do not see each other",
        ),
        pytest.param(
            [Rating(10, 1, 5, 1), Rating(11, 2, 6, 1), Rating(12, 2, 7, 1)],
            {5: [], 6: [], 7: [6]},
            id="a user sees no other user's clicks",
        ),
        pytest.param(
            [Rating(12, 1, 5, 1), Rating(10, 1, 9, 1), Rating(11, 1, 7, 1)],
            {9: [], 7: [9], 5: [9, 7]},
            id="oldest first, whatever the order in the file",
        ),
        pytest.param(
            [Rating(second, 1, 100 - second, 1) for second in range(23)],
            {100 - second: [100 - s for s in range(max(0, second - 20), second)] for second in range(23)},
            id="the last 20",
        ),
    ],
)
def test_histories(ratings: list[Rating], histories: dict[int, list[int]]) -> None:
    assert {rating.item_id: context.history for rating, context in with_context(ratings, NO_GENRES)} == histories


def test_skipped_is_what_was_not_clicked() -> None:
    ratings = [Rating(second, 1, 100 + second, second % 2) for second in range(43)]

    (*_, (_, last)) = with_context(ratings, NO_GENRES)

    assert last.history == [100 + second for second in range(3, 42, 2)]
    assert last.skipped == [100 + second for second in range(2, 42, 2)]


def test_counts_are_of_earlier_seconds() -> None:
    ratings = [
        Rating(10, 1, 5, 1),
        Rating(10, 2, 5, 0),
        Rating(11, 1, 6, 0),
        Rating(12, 1, 5, 1),
        Rating(12, 1, 7, 1),
        Rating(13, 2, 7, 0),
    ]
    genres = {5: ["Drama", "War"], 6: ["War"], 7: ["War", "Comedy"]}

    contexts = [
        (rating.user_id, rating.item_id, *context[2:]) for rating, context in with_context(ratings[::-1], genres)
    ]

    assert contexts == [
        (1, 5, 0, 1 / 2, 0, 1 / 2, 0, 1 / 2),
        (2, 5, 0, 1 / 2, 0, 1 / 2, 0, 1 / 2),
        (1, 6, 1, 2 / 3, 0, 1 / 2, 1, 2 / 3),  # of War: item 5
        (1, 5, 2, 2 / 4, 2, 2 / 4, 3, 3 / 5),  # of Drama: item 5; of War: items 5 and 6
        (1, 7, 2, 2 / 4, 0, 1 / 2, 2, 2 / 4),  # of War
        (2, 7, 1, 1 / 3, 1, 2 / 3, 1, 1 / 3),
    ]


def test_click_share_of_nothing_is_a_half() -> None:
    tally = Tally()
    assert tally.click_share == 0.5
    tally.add(1)
    tally.add(1)
    assert (tally.impressions, tally.clicks, tally.click_share) == (2, 2, 3 / 4)
