# LALE-S1 on ISPRS Vaihingen under protocol B; `clean=True` validates on a training tile.
_base_ = [
    '../_base_/models/lale_tiles.py',
    '../_base_/datasets/vaihingen_mmseg.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_80k.py',
]
model = dict(data_preprocessor=dict(mean=[119.75, 82.42, 81.17], std=[56.1, 40.75, 38.58]))  # infrared, red, green
