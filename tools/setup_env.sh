#!/usr/bin/env bash
# Creates or updates the environment .venv in the repository: bash tools/setup_env.sh
# PYTHON sets the interpreter (3.10 to 3.12). Nothing is compiled. The environment takes about 6 GB, most of it PyTorch.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=.venv
STAMP=$VENV/.requirements

# Changes with the requirements, so that the environment of an older checkout is updated.
fingerprint() {
  cat requirements/*.txt setup.py tools/setup_env.sh | cksum
  pwd
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.10 python}; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
      2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  echo "error: no usable Python 3.10 to 3.12 found${PYTHON:+ as PYTHON=$PYTHON}; install one (on Debian and" \
    "Ubuntu, also the package python3-venv), or pass its path: PYTHON=/path/to/python3.11 bash tools/setup_env.sh" >&2
  return 2
}

if [ -f "$STAMP" ] && [ "$(fingerprint)" = "$(cat "$STAMP")" ]; then
  echo "environment: $VENV is up to date"
  exit 0
fi
if [ ! -x "$VENV/bin/python" ]; then
  python=$(find_python)
  echo "environment: creating $VENV with $python ($("$python" --version))"
  "$python" -m venv "$VENV"
else
  echo "environment: updating $VENV"
fi
started=$SECONDS
echo "environment: installing PyTorch, the OpenMMLab stack without compiled operations, and lale_mmseg (2 to 3 minutes)"
# The constraints are passed as an option, because PIP_CONSTRAINT would also apply to build environments. Without torch in
# its build environment, mmcv compiles nothing; MMCV_WITH_OPS=0 requests this explicitly.
MMCV_WITH_OPS=0 "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
  -c requirements/constraints.txt -e '.[stack,dev]'
fingerprint >"$STAMP"
echo "environment: ready after $((SECONDS - started)) s"
