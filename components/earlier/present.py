"""Whether what the metadata store knows of is still on disk."""

from __future__ import annotations

from collections.abc import Sequence

from absl import logging
from tfx.dsl.io import fileio
from tfx.types.artifact import Artifact


def last_present(artifacts: Sequence[Artifact]) -> list[Artifact]:
    """Returns the last of the artifacts whose folder is there, with a warning for each that is passed over.

    Args:
        artifacts: The artifacts, the wanted one last.

    Returns:
        A list of that one; an empty list where there is none.
    """
    for artifact in reversed(artifacts):
        if fileio.exists(artifact.uri):
            return [artifact]
        logging.warning("%s is gone: an older %s is used, or none", artifact.uri, artifact.type_name)
    return []
