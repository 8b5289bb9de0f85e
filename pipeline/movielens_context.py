"""What a MovieLens impression's log would have had at its moment: the user's and the film's past, and nothing later.

He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014, section 4: features that count
what happened before predict more than those that describe the ad and its context.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

MAX_HISTORY = 20


class Rating(NamedTuple):
    """One rating; the order of the fields makes a sorted list run in time, then by user."""

    timestamp: int
    user_id: int
    item_id: int
    label: int


class Context(NamedTuple):
    """What is known before an impression; the fields are columns of the log.

    Attributes:
        history: The last items that the user clicked, oldest first.
        skipped: The last items that the user saw and did not click, oldest first.
        user_impressions: The user's impressions.
        user_click_share: The share of them that were clicks, see `Tally`.
        item_impressions: The film's impressions, of all users.
        item_click_share: The share of them that were clicks.
        genre_impressions: The user's impressions of films of each of this film's genres, summed over these.
        genre_click_share: The share of them that were clicks.
    """

    history: list[int]
    skipped: list[int]
    user_impressions: int
    user_click_share: float
    item_impressions: int
    item_click_share: float
    genre_impressions: int
    genre_click_share: float


@dataclasses.dataclass
class Tally:
    """A count of impressions and clicks."""

    impressions: int = 0
    clicks: int = 0

    @property
    def click_share(self) -> float:
        """(clicks + 1) / (impressions + 2), Laplace's rule of succession: a half where nothing was seen."""
        return (self.clicks + 1) / (self.impressions + 2)

    def add(self, label: int) -> None:
        """Counts an impression."""
        self.impressions += 1
        self.clicks += label


class _User:
    """A user's past."""

    def __init__(self) -> None:
        self.seen = Tally()
        self.of_genre: defaultdict[str, Tally] = defaultdict(Tally)
        self.items: tuple[deque[int], deque[int]] = (deque(maxlen=MAX_HISTORY), deque(maxlen=MAX_HISTORY))


def with_context(ratings: Sequence[Rating], genres: Mapping[int, Sequence[str]]) -> Iterator[tuple[Rating, Context]]:
    """Yields the ratings in the order of time, then user, then item, each with what was known before it.

    Before means in an earlier second: ratings of one second do not see each other, since which of them came first is
    not known.

    Args:
        ratings: In any order.
        genres: Those of each item.
    """
    users: defaultdict[int, _User] = defaultdict(_User)
    films: defaultdict[int, Tally] = defaultdict(Tally)
    for _, group in itertools.groupby(sorted(ratings), key=lambda rating: rating.timestamp):
        of_second = list(group)
        for rating in of_second:
            user, film = users[rating.user_id], films[rating.item_id]
            of_genres = [user.of_genre[genre] for genre in genres[rating.item_id]]
            taste = Tally(sum(tally.impressions for tally in of_genres), sum(tally.clicks for tally in of_genres))
            skipped, clicked = user.items
            yield (
                rating,
                Context(
                    history=list(clicked),
                    skipped=list(skipped),
                    user_impressions=user.seen.impressions,
                    user_click_share=user.seen.click_share,
                    item_impressions=film.impressions,
                    item_click_share=film.click_share,
                    genre_impressions=taste.impressions,
                    genre_click_share=taste.click_share,
                ),
            )
        for rating in of_second:
            user = users[rating.user_id]
            user.items[rating.label].append(rating.item_id)
            for tally in (
                user.seen,
                films[rating.item_id],
                *(user.of_genre[genre] for genre in genres[rating.item_id]),
            ):
                tally.add(rating.label)
