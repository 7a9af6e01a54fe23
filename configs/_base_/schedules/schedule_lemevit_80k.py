# The recipe of the LeMeViT paper (arXiv 2405.09789) for segmentation: AdamW at 4e-4. Clipping at 1.0 is ours.
_base_ = './schedule_80k.py'
optim_wrapper = dict(optimizer=dict(lr=4e-4, weight_decay=0.05))
