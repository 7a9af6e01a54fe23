# As schedule_plateau_60e.py, with the backbone frozen for the first 20 epochs, which count neither for the learning
# rate nor for the early stop.
_base_ = './schedule_plateau_60e.py'
find_unused_parameters = True  # several processes would wait for the gradients of the frozen part
# `begin` is the first epoch whose validation counts here, and the last one whose does not in the early stop. Without an
# `end` mmengine takes that of the run, and refuses runs that end before the release.
param_scheduler = [
    dict(
        type='ReduceOnPlateauLR',
        monitor='mIoU',
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
