# Sourced by the other scripts: sets PYTHON, unless it is set, to the Python of the active environment or of .venv.

if [ -z "${PYTHON:-}" ]; then
  if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$TOOLS/../.venv/bin/python" ]; then
    PYTHON=$(cd "$TOOLS/.." && pwd)/.venv/bin/python
  else
    PYTHON=python
  fi
fi
