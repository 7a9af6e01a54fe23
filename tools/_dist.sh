# Sourced by the dist_*.sh scripts: starts the given number of processes on this machine, one per GPU.

TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$TOOLS/_python.sh"

usage() {
  echo "usage: bash tools/$1" >&2
  exit 2
}

launch() {
  local processes=$1 script=$2
  shift 2
  if ! [[ $processes =~ ^[1-9][0-9]*$ ]]; then
    echo "error: GPUS is '$processes'; expected a positive number of processes" >&2
    exit 2
  fi
  local rendezvous
  if [ "${NNODES:-1}" -gt 1 ]; then
    rendezvous=(--nnodes "$NNODES" --node-rank "${NODE_RANK:?set NODE_RANK as well: the number of this machine, starting from 0}"
      --master-addr "${MASTER_ADDR:?set MASTER_ADDR as well: the address of machine 0}" --master-port "${PORT:-29500}")
  elif [ -n "${PORT:-}" ]; then
    rendezvous=(--nnodes 1 --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "$PORT")
  else
    # Picks a free port, so that several runs can share a machine.
    rendezvous=(--standalone)
  fi
  exec "$PYTHON" "$TOOLS/_launch.py" "${rendezvous[@]}" --nproc-per-node "$processes" "$TOOLS/$script" "$@"
}
