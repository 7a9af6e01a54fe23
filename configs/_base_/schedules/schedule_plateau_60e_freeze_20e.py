# As schedule_plateau_60e.py, with the backbone frozen for the first 20 epochs, which do not count for the early stop.
_base_ = './schedule_plateau_60e.py'
find_unused_parameters = True  # several processes would wait for the gradients of the frozen part
default_hooks = dict(
    frozen_backbone=dict(type='FreezeBackboneHook', epochs=20),
    early_stopping=dict(begin=20),
)
