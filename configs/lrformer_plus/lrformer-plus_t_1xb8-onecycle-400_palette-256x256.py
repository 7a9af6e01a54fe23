# LRFormer-T+ from scratch on your own images in 400 iterations (docs/own_data.md).
_base_ = [
    '../_base_/models/lrformer_mask2former.py',
    '../_base_/datasets/palette.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_onecycle_400.py',
]
model = dict(data_preprocessor=dict(size=(256, 256)))
optim_wrapper = dict(
    optimizer=dict(lr=3e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=0.01),
    constructor='GroupedOptimWrapperConstructor',
    paramwise_cfg=dict(norm_decay_mult=0.0, embedding_decay_mult=0.0),
)
param_scheduler = [dict(type='OneCycleLR', eta_max=3e-4, total_steps=400, pct_start=0.1, by_epoch=False)]
