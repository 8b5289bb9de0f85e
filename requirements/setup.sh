#!/usr/bin/env bash
# Makes .venv from the lock file of the newest stack that this machine can run; does nothing where it is up to date.
#
#   requirements/setup.sh                    make or update .venv
#   requirements/setup.sh lock [--upgrade]   bring both lock files up to date with setup.py
set -euo pipefail
cd "$(dirname "$0")/.."
export UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV="$PWD/.venv"

# Prints the path of a Python X.Y: one on PATH, or the newest that pyenv has (uv does not look there by itself).
find_python() {
  local pyenv_root=${PYENV_ROOT:-$HOME/.pyenv} candidate
  for candidate in "$(command -v "python$1" || true)" "$(command -v python3 || true)" \
    $(ls -d "$pyenv_root"/versions/"$1".*/bin/"python$1" 2>/dev/null | sort -rV); do
    # A pyenv shim is on PATH for every version and fails where that version is not selected: run it to know.
    if [[ -n $candidate && $("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) == "$1" ]]; then
      "$candidate" -c 'import os, sys; print(os.path.realpath(sys.executable))'
      return
    fi
  done
  return 1
}

# Prints the path of uv: the one on PATH, or the pinned one, installed beside the environment.
find_uv() {
  if uv --version >/dev/null 2>&1; then
    command -v uv
    return
  fi
  if [[ ! -x .cache/uv/bin/uv ]]; then
    rm -rf .cache/uv
    "$1" -m venv .cache/uv >&2 || {
      echo "setup: $1 cannot make virtual environments; install its venv module (Debian: apt-get install python3-venv) or uv" >&2
      return 1
    }
    .cache/uv/bin/python -m pip --disable-pip-version-check install -q --require-hashes -r requirements/uv.lock >&2
  fi
  echo "$PWD/.cache/uv/bin/uv"
}

if [[ ${1:-} == lock ]]; then
  uv=$(find_uv "$(find_python 3.11 || find_python 3.10)")
  lock() { # lock NAME PYTHON GLIBC [FLAG ...]
    "$uv" pip compile setup.py --all-extras --generate-hashes --no-header -q "${@:4}" \
      --python-version "$2" --python-platform "x86_64-manylinux_$3" -o "requirements/$1.lock"
  }
  lock tfx-1.16-py3.10 3.10 2_28 "${@:2}"
  lock tfx-1.21-py3.11 3.11 2_40 "${@:2}"
  exit
fi

glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | awk '{print $2}')
oldest=$(printf '%s\n' 2.39 "${glibc:-0}" | sort -V | head -n 1)
if [[ $oldest == 2.39 ]] && python=$(find_python 3.11); then
  stack=tfx-1.21-py3.11
elif python=$(find_python 3.10); then
  stack=tfx-1.16-py3.10
else
  [[ $oldest == 2.39 ]] && wanted="Python 3.11" || wanted="Python 3.10"
  echo "setup: no usable Python here (glibc ${glibc:-unknown}): install $wanted, on PATH or with pyenv, and run this again" >&2
  exit 1
fi

stamp="$stack $python $PWD $(cat "requirements/$stack.lock" setup.py trainer/row_kernels.cc "$0" | sha256sum)"
is_new=$([[ -e .venv/.stamp && $(<.venv/.stamp) == "$stamp" ]] || echo yes)
# What is compiled stands beside its source, which may be a new copy.
compiled() { compgen -G "trainer/row_kernels.*.so" >/dev/null; }
[[ -z $is_new ]] && { compiled || ! command -v "${CXX:-c++}" >/dev/null; } && exit
echo "setup: $stack with $("$python" --version) in .venv" >&2
uv=$(find_uv "$python")
if [[ -n $is_new ]]; then
  rm -rf .venv
  "$uv" venv -q --python "$python" .venv
  "$uv" pip sync -q --require-hashes "requirements/$stack.lock"
fi
rm -rf build trainer/row_kernels.*.so # of an earlier compiler, or Python
"$uv" pip install -q --no-deps --no-build-isolation -e .
if ! compiled; then
  command -v "${CXX:-c++}" >/dev/null && .venv/bin/python setup.py -q build_ext --inplace >&2 || true # to show what it says
  echo "setup: no C++ compiler here that works: training takes slower operations (Debian: apt-get install g++, then: make setup)" >&2
fi
echo "$stamp" >.venv/.stamp
