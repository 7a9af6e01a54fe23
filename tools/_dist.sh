# Sourced by the dist_*.sh scripts: starts one process for each GPU (or CPU process) of this machine.

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
    echo "error: GPUS is '$processes': a number of processes, 1 or more, is due" >&2
    exit 2
  fi
  local rendezvous
  if [ "${NNODES:-1}" -gt 1 ]; then
    rendezvous=(--nnodes "$NNODES" --node-rank "${NODE_RANK:?NODE_RANK is due with NNODES}"
      --master-addr "${MASTER_ADDR:?MASTER_ADDR is due with NNODES}" --master-port "${PORT:-29500}")
  elif [ -n "${PORT:-}" ]; then
    rendezvous=(--nnodes 1 --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "$PORT")
  else
    # A free port of its own, so that several runs share a machine.
    rendezvous=(--standalone)
  fi
  exec "$PYTHON" -m torch.distributed.run "${rendezvous[@]}" --nproc-per-node "$processes" "$TOOLS/$script" "$@"
}
