# Sourced by the slurm_*.sh scripts: starts the processes of a job through srun.

TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$TOOLS/_python.sh"

usage() {
  echo "usage: bash tools/$1" >&2
  exit 2
}

submit() {
  local partition=$1 job=$2 script=$3
  shift 3
  local gpus=${GPUS:-8} per_node=${GPUS_PER_NODE:-8}
  local resources=(--ntasks="$gpus")
  if [ "$per_node" -gt 0 ]; then
    [ "$per_node" -le "$gpus" ] || per_node=$gpus
    resources+=(--gres="gpu:$per_node" --ntasks-per-node="$per_node")
  fi
  # SRUN_ARGS is not quoted because it may contain several options.
  # shellcheck disable=SC2086
  exec srun -p "$partition" --job-name="$job" "${resources[@]}" --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} "$PYTHON" -u "$TOOLS/$script" "$@"
}
