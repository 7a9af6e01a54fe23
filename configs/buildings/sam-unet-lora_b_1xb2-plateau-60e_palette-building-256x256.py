# Attempt 5 with LoRA adapters in the image encoder of SAM, on one class of your own images against the rest; see
# docs/few_shot.md.
_base_ = [
    '../_base_/models/sam_unet_lora.py',
    '../_base_/datasets/palette_building.py',
    '../_base_/augmentations/medium.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_plateau_60e.py',
]
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
randomness = dict(seed=42)
