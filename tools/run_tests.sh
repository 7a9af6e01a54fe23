#!/usr/bin/env bash
# Style, types and tests, on any machine: bash tools/run_tests.sh [options of pytest]
# Without options the slow tests are left out; -m 'slow or not slow' runs all.
set -euo pipefail
cd "$(dirname "$0")/.."
bash tools/setup_env.sh
PYTHON=.venv/bin/python
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-}

# Only tracked files, so that files of your own in the repository pass; outside git all files.
files=()
while IFS= read -r -d '' file; do
  if [ -f "$file" ]; then files+=("$file"); fi
done < <(git ls-files -z '*.py' 2>/dev/null)
if [ ${#files[@]} -eq 0 ]; then files=(.); fi

echo "style: ruff"
"$PYTHON" -m ruff format --check --quiet "${files[@]}"
"$PYTHON" -m ruff check --quiet "${files[@]}"
echo "types: mypy"
"$PYTHON" -m mypy --no-error-summary
echo "tests: pytest"
if [ $# -eq 0 ]; then
  set -- -m 'not slow'
fi
# One single-threaded process per core: with more threads than cores they only wait for each other.
export OMP_NUM_THREADS=1
# The order of tests/conftest.py holds: by default the files with the fewest tests, which take longest, come last.
exec "$PYTHON" -m pytest -n auto --dist loadfile --no-loadscope-reorder "$@"
