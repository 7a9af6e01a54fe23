# The published recipe of the light body/edge network: SGD at 0.004, polynomial decay of power 0.9 over 500 epochs.
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.004, momentum=0.9, weight_decay=5e-4), clip_grad=None
)
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=0.9, begin=0, end=500, by_epoch=True)]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=500, val_interval=50)
val_cfg = dict(type='PredictionValLoop')
test_cfg = dict(type='PredictionTestLoop')
log_processor = dict(by_epoch=True)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook', by_epoch=True, interval=50, max_keep_ckpts=2, save_best='mF1', rule='greater'
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    report=dict(type='ReportHook'),
)
