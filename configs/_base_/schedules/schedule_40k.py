# AdamW, 40k iterations: linear warm-up over 1500, then polynomial decay.
_base_ = './schedule_80k.py'
param_scheduler = [
    _base_.param_scheduler[0],
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=1500, end=40000, by_epoch=False),
]
train_cfg = dict(max_iters=40000, val_interval=4000)
default_hooks = dict(checkpoint=dict(interval=4000))
