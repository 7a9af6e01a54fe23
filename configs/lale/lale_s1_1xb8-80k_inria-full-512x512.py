# LALE-S1 on Inria Aerial Image Labeling, full protocol (docs/inria.md).
_base_ = [
    '../_base_/models/lale_tiles.py',
    '../_base_/datasets/inria_full.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_80k.py',
]
