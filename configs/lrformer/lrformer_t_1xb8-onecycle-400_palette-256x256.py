# LRFormer-T from scratch on your own images in 400 iterations (docs/own_data.md).
_base_ = [
    '../_base_/models/lrformer.py',
    '../_base_/datasets/palette.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_onecycle_400.py',
]
model = dict(data_preprocessor=dict(size=(256, 256)))
