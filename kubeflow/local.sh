#!/usr/bin/env bash
# Builds the image, compiles the pipeline for it, and runs the package on MovieLens with kfp's DockerRunner; a container of
# the Trainer is killed on the way. What came of it is checked, on the outputs.
#
#   kubeflow/local.sh [FOLDER]     the folder (runs/kubeflow-local) has the log, the package and all outputs afterwards
#
# From the environment: BASE_IMAGE and BEAM_IMAGE, the image's bases; IMAGE, one that is there already; UV_DEFAULT_INDEX, a
# package index other than PyPI; KILL= (empty) to kill nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
docker version >/dev/null || { echo "kubeflow-local: no Docker engine answers" >&2; exit 1; }
folder=${1:-runs/kubeflow-local}
image=${IMAGE:-ctr:local}
kill=${KILL-Trainer}
kfp=.cache/kfp-2.16
mkdir -p "$folder" && chmod 777 "$folder"
rm -rf "$folder"/{runs,kfp,metadata.sqlite}  # of an earlier one, whose cache would be taken

if [[ -z ${IMAGE:-} ]]; then
  DOCKER_BUILDKIT=0 docker build --network host --file kubeflow/Dockerfile --tag "$image" \
    ${BASE_IMAGE:+--build-arg BASE_IMAGE="$BASE_IMAGE"} ${BEAM_IMAGE:+--build-arg BEAM_IMAGE="$BEAM_IMAGE"} \
    ${UV_DEFAULT_INDEX:+--build-arg UV_DEFAULT_INDEX="$UV_DEFAULT_INDEX"} .
fi
docker image inspect --format "image: {{.Size}} bytes" "$image"
if [[ ! -e $kfp/.ready ]]; then
  python=$(ls "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.11.*/bin/python3.11 2>/dev/null | tail -n 1 || command -v python3.11)
  rm -rf "$kfp"
  "$python" -m venv "$kfp"
  "$kfp/bin/pip" install -q kfp==2.16.1 kfp-kubernetes==2.16.1 docker==7.2.0
  touch "$kfp/.ready"
fi
[[ -e $folder/logs/movielens ]] || .venv/bin/ctr data movielens --out "$folder/logs/movielens"
.venv/bin/ctr kubeflow compile --image "$image" --out "$folder/pipeline.yaml" \
  --set kubeflow.pvc=null --set kubeflow.metadata=sqlite:///mnt/ctr/metadata.sqlite
(cd "$folder" && "$OLDPWD/$kfp/bin/python" "$OLDPWD/kubeflow/local_run.py" pipeline.yaml --root . ${kill:+--kill "$kill"})

model=$(ls -d "$folder"/runs/movielens/serving/*/ | sort -V | tail -n 1)
[[ -s $model/saved_model.pb ]] || { echo "kubeflow-local: no model was pushed" >&2; exit 1; }
metrics=$(ls -t "$folder"/kfp/*/evaluator/executor_output.json | head -n 1)
.venv/bin/python - "$metrics" <<'PYTHON'
import json, sys
(artifact,) = json.load(open(sys.argv[1]))["artifacts"]["metrics"]["artifacts"]
metrics = artifact["metadata"]
assert metrics["blessed"] == 1.0 and metrics["auc"] > 0.7, metrics
print("evaluated:", metrics)
PYTHON
echo '{"user_id": 1, "item_id": 50}' | .venv/bin/ctr predict --model "$model"
echo "kubeflow-local: pushed $model"
