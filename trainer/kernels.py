"""This project's own TensorFlow operations, `trainer/row_kernels.cc`, for training on CPUs.

What they do can be had from TensorFlow's operations as well, from more of them: that is what trains on GPUs and where
they have not been built.
"""

from __future__ import annotations

import functools
import importlib.machinery
import logging
import pathlib
from typing import Any

import tensorflow as tf

_LOGGER = logging.getLogger(__name__)
_LAST = "ctr_step_rowwise_adagrad"  # the operation that is registered last


@functools.cache
def own_kernels() -> Any | None:
    """Returns a module with a function for each operation; None on GPUs, and where there are none."""
    if tf.config.list_logical_devices("GPU"):
        return None
    try:
        return _load(pathlib.Path(__file__).parent)
    except (ImportError, tf.errors.OpError) as error:
        _LOGGER.warning("training with a large table will be slower than it can be: %s", error)
        return None


def _load(folder: pathlib.Path) -> Any:
    built = [folder / f"row_kernels{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    library = next((path for path in built if path.is_file()), None)
    if library is None:
        raise ImportError(f"there is no {built[0]}: it could not be compiled when this package was installed")
    operations = tf.load_op_library(str(library))
    if not hasattr(operations, _LAST):
        raise ImportError(f"{library} has no operations for TensorFlow {tf.__version__}; standard error says why")
    return operations
