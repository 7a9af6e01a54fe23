# A short schedule for small datasets and first looks: AdamW, one cycle of 400 iterations up to 1e-3.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [dict(type='OneCycleLR', eta_max=1e-3, total_steps=400, pct_start=0.1, by_epoch=False)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=400, val_interval=200)
val_cfg = dict(type='PredictionValLoop')
test_cfg = dict(type='PredictionTestLoop')
log_processor = dict(by_epoch=False)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        by_epoch=False,
        interval=200,
        max_keep_ckpts=2,
        save_best='mF1',
        rule='greater',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    report=dict(type='ReportHook'),
)
