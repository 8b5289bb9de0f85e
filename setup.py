"""Package metadata. Exact versions are in requirements/*.lock, one file for each supported stack."""

import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup

# Operations for the training, see `trainer/kernels.py`. Without a C++ compiler training works too, but slower.
kernels = Extension(
    "trainer.row_kernels",
    ["trainer/row_kernels.cc"],
    language="c++",
    extra_compile_args=["-std=c++17", "-O3", "-fopenmp-simd", "-fno-math-errno"],
    libraries=["dl"],
    optional=True,
)

setup(
    name="tfx-deepfm",
    version="0.1.0",
    description="A TFX production pipeline for DeepFM click-through-rate models",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    # `kubeflow` has no __init__.py, so that it does not shadow the SDK of that name; `ctr kubeflow` finds its files.
    packages=[*find_packages(include=["pipeline*", "components*", "transform*", "trainer*", "schemas*"]), "kubeflow"],
    ext_modules=[kernels] if sys.platform == "linux" else [],
    package_data={
        "components": ["evaluation_report/templates/*"],
        "pipeline": ["configs/*.yaml"],
        "schemas": ["*.pbtxt"],
    },
    install_requires=[
        "tfx>=1.16,<1.22",
        # TFX 1.16, the newest for Python 3.10 on glibc < 2.39, admits newer releases of these two and breaks on them:
        # Beam 2.74 imports a `dill` that it does not install, setuptools 81 has no pkg_resources.
        "apache-beam==2.61.0; python_version < '3.11'",
        "setuptools<81; python_version < '3.11'",
        "click>=8.1",
        "jinja2>=3.1",
        "keras-tuner>=1.4,<2",
        "pyarrow>=10",
        "pydantic>=2.5",
        "pyyaml>=6",
        "rich>=13",
        "tensorboard",
        "vl-convert-python>=1.9",
    ],
    extras_require={
        "kubeflow": ["tfx[kfp]"],
        "dev": [
            "hypothesis",
            "import-linter",
            "ipykernel",
            "kfp-kubernetes",
            "mypy",
            "nbclient",
            "pytest",
            "pytest-xdist",
            "ruff",
            "types-protobuf",
            "types-PyYAML",
        ],
    },
    entry_points={"console_scripts": ["ctr = pipeline.cli:main"]},
)
