# LALE-S1 on the real part of ARAS400k with the recipe of the paper. Other sizes set `model.backbone.arch`, other
# attention `model.backbone.attn_cfg.type`; `train_dataloader.dataset.parts.synthetic=1.0` adds the synthetic pairs.
_base_ = [
    '../_base_/models/lale.py',
    '../_base_/datasets/aras400k.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_plateau_20e.py',
]
model = dict(decode_head=dict(num_classes=7))
