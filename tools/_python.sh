# Sourced by the scripts: sets PYTHON to the python to use, that of an active environment, else of .venv.

if [ -z "${PYTHON:-}" ]; then
  if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$TOOLS/../.venv/bin/python" ]; then
    PYTHON=$(cd "$TOOLS/.." && pwd)/.venv/bin/python
  else
    PYTHON=python
  fi
fi
