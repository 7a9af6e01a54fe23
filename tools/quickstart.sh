#!/usr/bin/env bash
# Everything in one command: creates the environment and a small land-cover dataset, trains LALE-S1, tests it, and
# predicts two images with the checkpoint alone.
#   bash tools/quickstart.sh
# An existing environment, dataset or finished training is reused. Results are in work_dirs/quickstart.
# ITERATIONS=n sets the length of the training (250 by default), WORK_DIR and DATA_ROOT move the results and the data.
set -euo pipefail
cd "$(dirname "$0")/.."
CONFIG=configs/lale/lale_s1_1xb8-onecycle-400_aras400k-toy-256x256.py
ITERATIONS=${ITERATIONS:-250}
WORK_DIR=${WORK_DIR:-work_dirs/quickstart}
DATA_ROOT=${DATA_ROOT:-data/toy}
PYTHON=.venv/bin/python

step() { printf '\n== %s\n' "$*"; }

step "1/5 environment"
bash tools/setup_env.sh

step "2/5 data: a small land-cover dataset in ARAS400k's format, in $DATA_ROOT"
"$PYTHON" data_prep/make_toy.py "$DATA_ROOT"

CHECKPOINT=$WORK_DIR/iter_$ITERATIONS.pth
if [ -f "$CHECKPOINT" ]; then
  step "3/5 training: $CHECKPOINT exists; remove $WORK_DIR to train again"
else
  step "3/5 training LALE-S1 for $ITERATIONS iterations; the log shows the remaining time"
  "$PYTHON" tools/train.py "$CONFIG" --work-dir "$WORK_DIR" --resume --cfg-options data_root="$DATA_ROOT" \
    train_cfg.max_iters="$ITERATIONS" param_scheduler.0.total_steps="$ITERATIONS" \
    train_cfg.val_interval="$ITERATIONS" default_hooks.checkpoint.interval="$ITERATIONS"
fi

step "4/5 testing"
"$PYTHON" tools/test.py "$CONFIG" "$CHECKPOINT" --work-dir "$WORK_DIR" --cfg-options data_root="$DATA_ROOT"

step "5/5 predicting two images from the checkpoint alone"
mapfile -t IMAGES < <(find "$DATA_ROOT/test/images" -name '*.png' | sort | head -n 2)
"$PYTHON" tools/predict.py "$CHECKPOINT" "${IMAGES[@]}" --out-dir "$WORK_DIR/predictions"

step "done: look at"
for picture in curves.png test/confusion_matrix.png; do
  [ -f "$WORK_DIR/$picture" ] && echo "  $WORK_DIR/$picture"
done
find "$WORK_DIR/test/overlays" "$WORK_DIR/predictions" -name '*.png' | sort | sed 's/^/  /'
echo "scores: $WORK_DIR/test/metrics.json"
