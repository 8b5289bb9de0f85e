#!/usr/bin/env bash
# Makes the peers' environments below .cache/bench from benchmarks/requirements/*.txt; does nothing where they are there.
# pip, not uv: on a machine without a GPU, an index or a folder that pip is configured for may have a CPU build of torch.
set -euo pipefail
cd "$(dirname "$0")/.."

find_python() {
  local candidate
  for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/"python$1"; do
    if [[ $("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) == "$1" ]]; then
      "$candidate" -c 'import os, sys; print(os.path.realpath(sys.executable))'
      return
    fi
  done
  echo "benchmarks/setup.sh: there is no Python $1: install it, on PATH or with pyenv" >&2
  return 1
}

make_environment() { # make_environment NAME PYTHON
  local folder=.cache/bench/$1 stamp
  stamp="$2 $(sha256sum <"benchmarks/requirements/$1.txt")"
  [[ -e $folder/.stamp && $(<"$folder/.stamp") == "$stamp" ]] && return
  echo "benchmarks: $1 with Python $2 in $folder" >&2
  rm -rf "$folder"
  "$(find_python "$2")" -m venv "$folder"
  "$folder/bin/python" -m pip --disable-pip-version-check install -q -r "benchmarks/requirements/$1.txt"
  echo "$stamp" >"$folder/.stamp"
}

make_environment deepctr 3.10
make_environment torch 3.11
