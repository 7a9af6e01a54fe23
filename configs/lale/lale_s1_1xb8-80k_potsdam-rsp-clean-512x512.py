# LALE-S1 on ISPRS Potsdam under protocol C, with a training tile for validation.
_base_ = [
    '../_base_/models/lale_tiles.py',
    '../_base_/datasets/potsdam_rsp_clean.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_80k.py',
]
