#!/usr/bin/env bash
# LEGACY, see create.sh. Installs this tree on all hosts of a slice and runs jssd.main on all of them:
# on one alone it would wait for the others. The work directory must be a mount that all share.
#
#     launch/tpu_vm/run.sh NAME ZONE --config=configs/... --workdir=/mnt/runs/... --stages=...
#
# Ends with the command's exit code, and starts it again after 42, 140 and signals (RESTARTS times).
set -euo pipefail

if (($# < 3)); then
  sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
name=$1 zone=$2
shift 2
root=$(cd "$(dirname "$0")/../.." && pwd)
archive=$(mktemp)
trap 'rm -f "$archive"' EXIT
git -C "$root" archive --format=tar.gz --output="$archive" HEAD

flags=""
for flag in "$@"; do
  flags+=" $(printf '%q' "$flag")"
done
type=$(gcloud compute tpus tpu-vm describe "$name" --zone="$zone" \
  --format='value(acceleratorType.basename())')
exports=$(cd "$root" && "${PYTHON:-python3}" -m launch.flags "$type")
gcloud compute tpus tpu-vm scp "$archive" "$name:jssd.tar.gz" --zone="$zone" --worker=all
gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="
  set -e
  mkdir -p jssd && tar -xzf jssd.tar.gz -C jssd && cd jssd
  python3 -m venv .venv
  .venv/bin/pip install --quiet --constraint constraints.txt '.[tpu,hub]'"

restarts=0
while true; do
  code=0
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="
    cd jssd && unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY
    $exports
    exec .venv/bin/python -m jssd.main --distributed$flags" || code=$?
  if ((code != 42 && code < 128)) || ((restarts >= ${RESTARTS:-50})); then
    exit "$code"
  fi
  restarts=$((restarts + 1))
  echo "run.sh: ended with $code, start $restarts" >&2
  sleep "${PAUSE:-30}"
done
