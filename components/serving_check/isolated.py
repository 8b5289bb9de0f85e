"""Runs a script without this project, and without TFX, on its import path.

    python -I -S isolated.py SCRIPT JOB [FOLDER...]

`-I` leaves out the current folder, PYTHONPATH and the user's packages, `-S` what an installation puts on the path: an
editable one of this project, too. FOLDERs are where TensorFlow is. Where this project is installed beside it, the
refusal below still holds.
"""

import runpy
import sys

REFUSED = ("pipeline", "components", "transform", "trainer", "schemas", "tfx", "tensorflow_transform", "tf_keras")


class Refuse:
    """An import hook: what a server does not have cannot be found."""

    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
        """Raises an error for a refused package, and leaves the others to Python."""
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"{name} is not there where a model is served", name=name)


if __name__ == "__main__":
    script, job, *folders = sys.argv[1:]
    sys.path += folders
    sys.meta_path.insert(0, Refuse)
    sys.argv = [script, job]
    runpy.run_path(script, run_name="__main__")
