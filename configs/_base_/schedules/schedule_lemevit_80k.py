# The recipe of the LeMeViT paper (arXiv 2405.09789) for segmentation: AdamW at 4e-4. What the paper
# leaves open is listed in configs/lemevit/README.md.
_base_ = './schedule_80k.py'
optim_wrapper = dict(optimizer=dict(lr=4e-4, weight_decay=0.05))
