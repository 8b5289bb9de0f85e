#!/bin/sh
# Beam starts its workers with flags alone, Kubeflow a container with a whole command.
case "$1" in
  --*) exec /opt/apache/beam/boot "$@" ;;
  *) exec "$@" ;;
esac
