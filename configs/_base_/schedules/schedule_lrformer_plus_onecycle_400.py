# A short schedule for LRFormer+ from scratch, on small data sets and for first looks: one cycle of 400 iterations up to
# 3e-4, the same in backbone and head.
_base_ = './schedule_onecycle_400.py'
optim_wrapper = dict(
    optimizer=dict(lr=3e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=0.01),
    constructor='GroupedOptimWrapperConstructor',
    paramwise_cfg=dict(norm_decay_mult=0.0, embedding_decay_mult=0.0),
)
param_scheduler = [dict(type='OneCycleLR', eta_max=3e-4, total_steps=400, pct_start=0.1, by_epoch=False)]
