"""What ten billion impressions a day would take, derived from `benchmarks/results`: `python -m benchmarks.scale`.

Prints the table of `docs/scale.md`, which says what is assumed.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

from benchmarks.results import FOLDER

ROWS_A_DAY = 10_000_000_000
HOURS = 1.5  # of each stage
DOLLARS_PER_VCPU_HOUR = 0.04
EVALUATED = 0.01  # of the rows


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a day.

    Attributes:
        name: What is done.
        source: The figures that it is derived from.
        cpu_seconds: Of `rows` rows, as measured.
        rows: How many rows that was.
        share: Of the day's rows that the stage takes.
    """

    name: str
    source: str
    cpu_seconds: float
    rows: int
    share: float = 1.0

    @property
    def vcpu_hours(self) -> float:
        """VCPU hours a day."""
        return ROWS_A_DAY * self.share * self.cpu_seconds / self.rows / 3600

    def line(self) -> str:
        """The stage's line of the table."""
        measured = (
            f"{1e6 * self.cpu_seconds / self.rows:.1f} µs | `{self.source}`: {self.cpu_seconds:g} s / {self.rows:,}"
        )
        workers, dollars = math.ceil(self.vcpu_hours / HOURS), self.vcpu_hours * DOLLARS_PER_VCPU_HOUR
        return f"| {self.name} | {measured} | {self.vcpu_hours:,.1f} | {workers:,} | {dollars:,.2f} |"


def find_stages() -> Iterator[Stage]:
    """Yields the stages in the order of a day."""
    ingest = _read("ingest")["parquet, 10 times the rows"]
    yield Stage("ingestion", "ingest.json, parquet", ingest["cpu_seconds"], ingest["rows"])
    sizes = _read("pipeline")["sizes"]
    # The largest: what starting a component costs has the least part there.
    rows = max(int(size) for size, found in sizes.items() if "ours" in found)
    components = sizes[str(rows)]["ours"]["components"]
    for node in ("StatisticsGen", "Transform"):
        yield Stage(node, f"pipeline.json, {rows:,} rows", components[node]["cpu_seconds"], rows)
    speed = _read("speed")["4M/1024"]["this project"]["rows_per_second"]
    yield Stage("training, one pass", "speed.json, 4M/1024, two cores", 2.0, round(speed))
    evaluate = _read("evaluate")["this project"]
    name = f"evaluation, {EVALUATED:.0%} of the day"
    yield Stage(name, "evaluate.json", evaluate["cpu_seconds"], evaluate["rows"], EVALUATED)


def _read(name: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["figures"])


def main() -> None:
    """Prints the table."""
    print("| stage | CPU a row, measured | from | vCPU hours a day | workers | dollars a day |")
    print("|---|--:|---|--:|--:|--:|")
    total = 0.0
    for stage in find_stages():
        total += stage.vcpu_hours
        print(stage.line())
    print(f"| all | | | {total:,.1f} | | {total * DOLLARS_PER_VCPU_HOUR:,.2f} |")


if __name__ == "__main__":
    main()
