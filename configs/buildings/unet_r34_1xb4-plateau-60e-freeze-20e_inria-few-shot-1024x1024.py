# Attempt 2: U-Net with an ImageNet ResNet-34, frozen for the first 20 epochs, on the few-shot roofs of Inria
# (docs/few_shot.md).
_base_ = [
    '../_base_/models/unet_r34.py',
    '../_base_/datasets/inria_few_shot.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_roofs_60e_freeze_20e.py',
]
randomness = dict(seed=42)
