#!/usr/bin/env bash
# Makes a stand-in for the image python:3.11-slim-trixie, where that cannot be pulled: Debian 13, and the Python 3.11 that
# PATH or pyenv has on this machine, in /usr/local. For tests only. It stands in for Beam's worker image, too.
#
#   kubeflow/base_image.sh NAME:TAG
set -euo pipefail
[[ $# == 1 ]] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[[ $EUID == 0 ]] || { echo "base_image: debootstrap needs root" >&2; exit 2; }
command -v debootstrap >/dev/null || { echo "base_image: no debootstrap here: apt-get install debootstrap" >&2; exit 2; }
python=$(ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.11.*/bin/python3.11 2>/dev/null | sort -V | tail -n 1 || true)
[[ -n $python ]] || python=$(command -v python3.11) || { echo "base_image: no Python 3.11 here" >&2; exit 2; }
prefix=$("$python" -c 'import sys; print(sys.base_prefix)')

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mirror=$(grep -rhoE '^(URIs: |deb )\S*/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d/ 2>/dev/null |
  awk '{print $2}' | head -n 1 || true)
debootstrap --variant=minbase \
  --include=ca-certificates,libssl3t64,libffi8,libsqlite3-0,libbz2-1.0,libreadline8t64,liblzma5,zlib1g \
  trixie "$root" ${mirror:+"$mirror"} >&2
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/*
tar -C "$prefix" -c --exclude='__pycache__' --exclude=./lib/python3.11/test --exclude=./lib/python3.11/site-packages \
  --exclude='*.a' --exclude=./share ./bin/python3.11 ./lib ./include | tar -x -C "$root/usr/local"
ln -sf python3.11 "$root/usr/local/bin/python3" && ln -sf python3.11 "$root/usr/local/bin/python"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"  # a network may have certificates of its own
# Where the real Beam image has the program that starts a worker.
mkdir -p "$root/opt/apache/beam" && printf '#!/bin/sh\necho "a stand-in: no Beam worker" >&2\nexit 1\n' >"$root/opt/apache/beam/boot"
chmod +x "$root/opt/apache/beam/boot"
chroot "$root" ldconfig
chroot "$root" python -c 'import bz2, ctypes, lzma, sqlite3, ssl, sys; assert sys.prefix == "/usr/local", sys.prefix'
chroot "$root" python -m ensurepip >/dev/null
tar -C "$root" -c . | docker import --change 'CMD ["python"]' \
  --change 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt' - "$1"
