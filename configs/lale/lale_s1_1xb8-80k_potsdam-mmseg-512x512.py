# LALE-S1 on ISPRS Potsdam under protocol B; `clean=True` validates on a training tile.
_base_ = [
    '../_base_/models/lale_tiles.py',
    '../_base_/datasets/potsdam_mmseg.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_80k.py',
]
