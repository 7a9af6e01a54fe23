# The schedule of the LALE paper (arXiv 2606.02092): at most 20 epochs of AdamW at 1e-3. The rate is divided by 10 when
# the validation macro F1 has not risen for more than 3 epochs; training stops when it has not risen for 5. Gradients
# are clipped at 1.0; bfloat16 autocast.
optim_wrapper = dict(
    type='AnyDeviceAmpOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [dict(type='ReduceOnPlateauLR', monitor='mF1', rule='greater', factor=0.1, patience=3, by_epoch=True)]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=20, val_interval=1)
val_cfg = dict(type='PredictionValLoop')
test_cfg = dict(type='PredictionTestLoop')
log_processor = dict(by_epoch=True)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook', by_epoch=True, interval=1, max_keep_ckpts=2, save_best='mF1', rule='greater'
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    report=dict(type='ReportHook'),
    early_stopping=dict(type='LALEEarlyStopping', monitor='mF1', rule='greater', patience=5),
)
