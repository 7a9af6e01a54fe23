# LRFormer-T on ADE20K with the recipe of the paper.
_base_ = [
    '../_base_/models/lrformer.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_lrformer_160k.py',
]
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
