"""One of the workers that help the Trainer, the chief, to train: `python -m trainer.worker`, with a `TF_CONFIG`.

What is trained on what, the chief says. The process ends with it: with status 0, or 1 where the training has failed, so
that whatever has started it starts it again for the next attempt. See `docs/multi-worker.md`.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from trainer.cluster import WorkersError, read_cluster


def main(arguments: Sequence[str] | None = None) -> int:
    """Helps to train once, and returns the process's status."""
    parser = argparse.ArgumentParser(prog="python -m trainer.worker", description="Helps the Trainer to train.")
    parser.add_argument(
        "--wait-minutes", type=float, default=60.0, help="how long to wait for the Trainer to start (%(default)s)"
    )
    wait_minutes = parser.parse_args(arguments).wait_minutes
    try:
        cluster = read_cluster(os.environ.get("TF_CONFIG"))
        if cluster is None:
            raise WorkersError("TF_CONFIG names no other process: set it to all addresses and this one's place")
        if cluster.rank == 0:
            raise WorkersError("TF_CONFIG makes this process the chief, which is the Trainer's to be: start `ctr run`")
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        from trainer.run import help_to_train  # imports TFX, which takes its time

        help_to_train(cluster, wait_minutes)
    except WorkersError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
