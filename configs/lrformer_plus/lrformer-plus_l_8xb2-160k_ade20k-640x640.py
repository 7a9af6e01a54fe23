# LRFormer-L+ on ADE20K with the recipe of the paper, whose images are larger for L+ and XL+. XL+ is set by options
# (README.md).
_base_ = [
    '../_base_/models/lrformer_mask2former.py',
    '../_base_/datasets/ade20k_640x640.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_lrformer_plus_160k.py',
]
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(arch='l'),
    decode_head=dict(in_channels=[96, 192, 480, 640]),
)
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
