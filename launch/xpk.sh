#!/usr/bin/env bash
# A gang on a cluster that xpk made: launch/README.md. XPK_DRY_RUN=1 prints the manifest instead.
#
#     launch/xpk.sh NAME CLUSTER ZONE PROJECT TPU_TYPE SLICES IMAGE --config=... --workdir=... ...
#
# Everything after IMAGE goes to jssd.main. xpk restarts exit codes 42 and 127 to 255, and no other:
# as jssd means them. XLA gets the default flags of launch/flags.py.
set -euo pipefail

if (($# < 8)); then
  sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
name=$1 cluster=$2 zone=$3 project=$4 tpu=$5 slices=$6 image=$7
shift 7

root=$(cd "$(dirname "$0")/.." && pwd)
exports=$(cd "$root" && "${PYTHON:-python3}" -m launch.flags "$tpu" --slices="$slices")
command="${exports:+$exports && }exec python -m jssd.main --distributed"
for flag in "$@"; do
  command+=" $(printf '%q' "$flag")"
done

if [[ " $* " != *" --config.survival.grace="* ]]; then
  command+=" --config.survival.grace=100" # Of the 120 below; xpk's shell may be 5 s late.
fi

create=(workload create --workload="$name" --cluster="$cluster" --zone="$zone"
  --project="$project" --tpu-type="$tpu" --num-slices="$slices" --docker-image="$image"
  --max-restarts=50 --termination-grace-period-seconds=120 --command="$command")
if [[ ${XPK_DRY_RUN:-} != 1 ]]; then
  exec xpk "${create[@]}"
fi
manifest=$(mktemp)
trap 'rm -f "$manifest"' EXIT
xpk "${create[@]}" --dry-run --output-manifest-file="$manifest" >&2
cat "$manifest"
