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


@functools.cache
def own_kernels() -> Any | None:
    """Returns a module with a function for each operation; None on GPUs, and where they have not been built."""
    if tf.config.list_logical_devices("GPU"):
        return None
    folder = pathlib.Path(__file__).parent
    built = [folder / f"row_kernels{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    for library in built:
        if library.is_file():
            return tf.load_op_library(str(library))
    _LOGGER.warning(
        "training with a large table will be slower than it can be: there is no %s, as there was no C++ compiler when "
        "this package was installed",
        built[0],
    )
    return None
