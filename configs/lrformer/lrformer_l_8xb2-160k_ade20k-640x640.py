# LRFormer-L on ADE20K with the recipe of the paper.
_base_ = [
    '../_base_/models/lrformer_l.py',
    '../_base_/datasets/ade20k_640x640.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_lrformer_160k.py',
]
model = dict(data_preprocessor=dict(size=(640, 640)))
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
