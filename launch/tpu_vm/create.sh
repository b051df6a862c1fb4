#!/usr/bin/env bash
# LEGACY: the TPU VM API gets fixes only and has no TPU7x; new clusters are GKE's. See README.md.
# Asks for a slice, spot by default, and waits until it is there.
#
#     launch/tpu_vm/create.sh NAME ZONE ACCELERATOR_TYPE        e.g. jssd us-east5-b v6e-64
#
# SPOT=0 asks for one that is not taken away.
set -euo pipefail

if (($# != 3)); then
  sed -n '3,7s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
name=$1 zone=$2 type=$3

case $type in
  v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
  v5p-*) runtime=v2-alpha-tpuv5 ;;
  v6e-*) runtime=v2-alpha-tpuv6e ;;
  *)
    echo "create.sh: $type must be v5litepod-N, v5p-N or v6e-N; TPU7x is on GKE only." >&2
    exit 2
    ;;
esac
spot=(--spot)
if [[ ${SPOT:-1} == 0 ]]; then
  spot=()
fi
gcloud compute tpus queued-resources create "$name" --node-id="$name" --zone="$zone" \
  --accelerator-type="$type" --runtime-version="$runtime" "${spot[@]}"
while true; do
  state=$(gcloud compute tpus queued-resources describe "$name" --zone="$zone" \
    --format='value(state.state)')
  echo "$name: $state"
  case $state in
    ACTIVE) exit 0 ;;
    FAILED | SUSPENDED | SUSPENDING | DELETING) exit 1 ;;
  esac
  sleep 30
done
