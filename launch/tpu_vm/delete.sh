#!/usr/bin/env bash
# LEGACY, see create.sh. Gives a slice back, whatever it is doing.
#
#     launch/tpu_vm/delete.sh NAME ZONE
set -euo pipefail

if (($# != 2)); then
  sed -n '2,4s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
gcloud compute tpus queued-resources delete "$1" --zone="$2" --force --quiet
