# LALE-S1 on ISPRS Potsdam under protocol C as published: validation is on the test tiles, so they choose nothing
# and the last checkpoint is the one to test.
_base_ = [
    '../_base_/models/lale_tiles.py',
    '../_base_/datasets/potsdam_rsp.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_80k.py',
]
default_hooks = dict(checkpoint=dict(save_best=None))
