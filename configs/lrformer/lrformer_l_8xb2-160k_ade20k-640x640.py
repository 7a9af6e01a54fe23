# LRFormer-L on ADE20K with the recipe of the paper, whose crops are larger for this size.
_base_ = [
    '../_base_/models/lrformer.py',
    '../_base_/datasets/ade20k_640x640.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_lrformer_160k.py',
]
model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(arch='l'),
    decode_head=dict(in_channels=[192, 480, 640], channels=640),
)
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
