#!/usr/bin/env bash
# Every check that needs a GPU, for a machine that has one: bash benchmarks/gpu_checks.sh RESULTS_FOLDER
# PYTHON names the interpreter; the environment needs no network. Ends with "GPU checks passed".
# CHIPS, a palette dataset with a class building, adds the attempts of configs/buildings on it, for EPOCHS epochs (60).
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${1:?usage: bash benchmarks/gpu_checks.sh RESULTS_FOLDER}
PYTHON=${PYTHON:-python3}
export PYTHON PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
CONFIG=configs/lale/lale_s1_1xb8-onecycle-400_aras400k-toy-256x256.py
mkdir -p "$OUT"
DATA=$OUT/toy

"$PYTHON" data_prep/make_toy.py "$DATA"
echo "== deformable attention without compiled operations takes its grid_sample form on CUDA"
"$PYTHON" - <<'PY'
import torch
import lale_mmseg.register
from mmcv.ops import MultiScaleDeformableAttention

module = MultiScaleDeformableAttention(embed_dims=32, num_heads=4, num_levels=1, batch_first=True).cuda()
value, points = torch.randn(1, 16, 32, device='cuda'), torch.rand(1, 16, 1, 2, device='cuda')
shapes, starts = torch.tensor([[4, 4]], device='cuda'), torch.tensor([0], device='cuda')
out = module(value, value=value, reference_points=points, spatial_shapes=shapes, level_start_index=starts)
assert out.isfinite().all()
PY
echo "== every backbone computes on CUDA what it computes on the CPU"
"$PYTHON" - <<'PY'
import torch
import lale_mmseg.register
from benchmarks.backbones import BACKBONES

torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
for name, build in BACKBONES.items():
    torch.manual_seed(0)
    model, image = build().eval(), torch.randn(1, 3, 95, 127)
    with torch.inference_mode():
        expected = model(image)
        found = model.cuda()(image.cuda())
    error = max(((f.cpu() - e).abs().max() / e.std()).item() for f, e in zip(found, expected))
    print(f'{name}: largest error {error:.1e} of the standard deviation')
    assert error < 1e-3, name
PY
for options in "" "--amp bf16" "--amp fp16" "--amp bf16 --compile"; do
  echo "== training on one GPU, options: ${options:-none}"
  # shellcheck disable=SC2086
  "$PYTHON" tools/train.py "$CONFIG" --work-dir "$OUT/work${options// /}" $options --cfg-options data_root="$DATA"
  "$PYTHON" tools/test.py "$CONFIG" "$OUT/work${options// /}/iter_400.pth" --work-dir "$OUT/work${options// /}" \
    --cfg-options data_root="$DATA" | tail -n 20
done
echo "== distributed training with NCCL and SyncBN"
bash tools/dist_train.sh "$CONFIG" 1 --work-dir "$OUT/dist" --cfg-options data_root="$DATA" train_cfg.max_iters=50
bash tools/dist_test.sh "$CONFIG" "$OUT/work/iter_400.pth" 1 --work-dir "$OUT/dist" --cfg-options data_root="$DATA"
cmp "$OUT/dist/test/confusion_matrix.csv" "$OUT/work/test/confusion_matrix.csv"
echo "== LRFormer-T+ (Mask2Former) trains and predicts on CUDA"
PLUS=configs/lrformer_plus/lrformer-plus_t_1xb16-160k_aras400k-256x256.py
SET=(data_root="$DATA" train_dataloader.batch_size=8 train_cfg.max_iters=20 train_cfg.val_interval=20
  param_scheduler.0.end=5 param_scheduler.1.begin=5 param_scheduler.1.end=20 default_hooks.checkpoint.interval=20)
"$PYTHON" tools/train.py "$PLUS" --work-dir "$OUT/plus" --cfg-options "${SET[@]}"
"$PYTHON" tools/test.py "$PLUS" "$OUT/plus/iter_20.pth" --work-dir "$OUT/plus" --cfg-options data_root="$DATA" | tail -n 20
echo "== the body/edge network trains and predicts on CUDA"
EDGE=configs/body_edge/ued-bes-sfm_x10_1xb64-plateau-20e_aras400k-256x256.py
for options in "" "--amp bf16"; do
  # shellcheck disable=SC2086
  "$PYTHON" tools/train.py "$EDGE" --work-dir "$OUT/edge" $options --cfg-options data_root="$DATA" \
    train_dataloader.batch_size=8 train_cfg.max_epochs=2
done
bash tools/dist_train.sh "$EDGE" 1 --work-dir "$OUT/edge_dist" --cfg-options data_root="$DATA" \
  train_dataloader.batch_size=8 train_cfg.max_epochs=1
"$PYTHON" tools/test.py "$EDGE" "$OUT/edge/epoch_2.pth" --work-dir "$OUT/edge" --tta --cfg-options data_root="$DATA" \
  model.test_cfg.mode=slide "model.test_cfg.crop_size=(128,128)" \
  "model.test_cfg.stride=(85,85)" test_evaluator.boundary_tolerance=3 | tail -n 20
echo "== sliding windows on CUDA give mmsegmentation's logits"
"$PYTHON" - <<'PY'
import torch
import lale_mmseg.register
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from lale_mmseg.inference import Predictor

init_default_scope('mmseg')
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
head = dict(type='LALEHead', num_classes=6, norm_cfg=dict(type='BN'))
head['loss_decode'] = dict(type='CrossEntropyLoss', avg_non_ignore=True)
test_cfg = dict(mode='slide', crop_size=(128, 128), stride=(85, 85))
model = dict(type='EncoderDecoder', backbone=dict(type='LALE'), decode_head=head, test_cfg=test_cfg)
model = MODELS.build(ConfigDict(model, data_preprocessor=dict(type='SegDataPreProcessor'))).cuda().eval()
size = (300, 411)
sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=size, pad_shape=size))
batch = dict(inputs=[torch.randn(3, *size)], data_samples=[sample])
with torch.no_grad():
    expected = model.test_step(batch)[0].seg_logits.data
model.test_cfg.keep_logits = True
found = Predictor(model)(batch)[0].seg_logits.data
error = (found - expected).abs().max().item()
print(f'largest difference {error:.1e}')
assert error < 1e-4
PY
echo "== attention over growing images"
"$PYTHON" benchmarks/attention.py --device cuda --dtype bfloat16 --sizes 256 512 1024 2048 --save
echo "== throughput of every backbone"
"$PYTHON" benchmarks/backbones.py --device cuda --dtype bfloat16 --size 256 512 --batch 1 16 64 256 --save
if [ -n "${CHIPS:-}" ]; then
  echo "== attempts on one class, from random weights (published ones of encoders need a network)"
  mkdir -p "$OUT/configs"
  for source in configs/buildings/*_inria-few-shot-*.py; do
    name=$(basename "${source%%_1xb*}")
    config=$OUT/configs/$name.py  # the same with palette data in place of Inria's
    sed "s/inria_few_shot/palette_building/; s#'\.\./_base_#'$PWD/configs/_base_#" "$source" > "$config"
    options="data_root=$CHIPS train_cfg.max_epochs=${EPOCHS:-60}"
    "$PYTHON" tools/train.py "$config" --random-init --work-dir "$OUT/attempts/$name" --cfg-options $options
    "$PYTHON" tools/test.py "$config" "$(ls -t "$OUT/attempts/$name"/best_mIoU_*.pth | head -1)" \
      --work-dir "$OUT/attempts/$name" --cfg-options "data_root=$CHIPS"
  done
  "$PYTHON" tools/analysis/compare_runs.py "$OUT"/attempts/* --out "$OUT/compared"
  echo "== maps of a frozen encoder kept on disk"
  "$PYTHON" benchmarks/sam_cache.py --device cuda --save
fi
if "$PYTHON" -c 'import segmentation_models_pytorch' 2>/dev/null; then
  echo "== throughput"
  "$PYTHON" benchmarks/throughput.py --device cuda --dtype bfloat16 --batch 1 64 512 2048 --compile --save
fi
echo "GPU checks passed"
