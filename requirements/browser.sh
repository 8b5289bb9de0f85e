#!/usr/bin/env bash
# Installs Chromium, which the tests of the report look at it with, where there is none and apt and root are at hand.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
  command -v "$name" >/dev/null && exit
done
if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
  echo "browser: no Chromium here: the tests that look at the report will be skipped (Debian: apt-get install chromium)" >&2
  exit
fi
echo "browser: installing Chromium" >&2
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
