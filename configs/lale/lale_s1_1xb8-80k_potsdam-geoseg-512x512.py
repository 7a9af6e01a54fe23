# LALE-S1 on ISPRS Potsdam under protocol A.
_base_ = [
    '../_base_/models/lale_tiles.py',
    '../_base_/datasets/potsdam_geoseg.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_80k.py',
]
