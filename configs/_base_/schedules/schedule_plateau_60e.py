# Up to 60 epochs of AdamW in bfloat16 autocast (docs/training_recipe.md). The learning rate is halved at the 4th epoch
# in a row without a higher validation mIoU (mmengine waits for more than `patience` epochs); training stops at the
# 10th. A child config adds hooks by name, for example an average of the weights:
#   default_hooks = dict(ema=dict(type='EMAHook', momentum=0.001))
optim_wrapper = dict(
    type='AnyDeviceAmpOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-4),
)
param_scheduler = [
    dict(type='ReduceOnPlateauLR', monitor='mIoU', rule='greater', factor=0.5, patience=3, by_epoch=True)
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=60, val_interval=1)
val_cfg = dict(type='PredictionValLoop')
test_cfg = dict(type='PredictionTestLoop')
# Training and validation both log a `loss`, so names start with the phase. The validation loss is one value, which must
# not be averaged over the last ones as training losses are.
log_processor = dict(
    by_epoch=True, log_with_hierarchy=True, mean_pattern=r'^(?!val/.*loss).*(loss|time|data_time|grad_norm).*'
)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook', by_epoch=True, interval=1, max_keep_ckpts=2, save_best='mIoU', rule='greater'
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    report=dict(type='ReportHook', overlay_interval=10, keep_best=True),
    diagnostics=dict(type='EpochDiagnosticsHook'),
    early_stopping=dict(type='LALEEarlyStopping', monitor='mIoU', rule='greater', patience=10, min_delta=0.0),
)
