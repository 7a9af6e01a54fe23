# Attempt 4: frozen SAM ViT-B with a convolutional decoder on the few-shot roofs of Inria (docs/few_shot.md).
_base_ = [
    '../_base_/models/sam_conv.py',
    '../_base_/datasets/inria_few_shot.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_roofs_60e.py',
]
train_dataloader = dict(batch_size=2)
# float32, as the study trained its SAM attempts.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4),
)
randomness = dict(seed=42)
