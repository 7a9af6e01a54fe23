# DeepLabV3+ with an ImageNet ResNet-34 on Inria Aerial Image Labeling, full protocol (docs/inria.md).
_base_ = [
    '../_base_/models/deeplabv3plus_r34.py',
    '../_base_/datasets/inria_full.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_80k.py',
]
model = dict(test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))
