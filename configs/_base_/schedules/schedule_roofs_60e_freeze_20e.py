# schedule_roofs_60e.py with the backbone frozen for the first 20 epochs, which are ignored by the learning rate
# schedule and by early stopping.
_base_ = './schedule_roofs_60e.py'
find_unused_parameters = True  # else processes wait for gradients of the frozen part
# The scheduler counts validations from epoch `begin` on, early stopping those after epoch `begin`. Without an explicit
# `end`, mmengine uses the length of the run and rejects runs that are shorter than the frozen phase.
param_scheduler = [
    dict(
        type='ReduceOnPlateauLR',
        monitor='mean_tile_IoU',
        rule='greater',
        factor=0.5,
        patience=3,
        by_epoch=True,
        begin=21,
        end=10**9,
    )
]
default_hooks = dict(
    frozen_backbone=dict(type='FreezeBackboneHook', epochs=20),
    early_stopping=dict(begin=20),
)
