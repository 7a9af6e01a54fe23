# Attempt 3: DeepLabV3+ with an ImageNet ResNet-34, frozen for the first 20 epochs, on one class of your own images
# against the rest; see docs/few_shot.md.
_base_ = [
    '../_base_/models/deeplabv3plus_r34.py',
    '../_base_/datasets/palette_building.py',
    '../_base_/augmentations/medium.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_plateau_60e_freeze_20e.py',
]
randomness = dict(seed=42)
