# Attempt 5 with the features of SAM kept on disk: flips and turns alone, as an image that repeats is what a cache is
# for.
_base_ = './sam-unet_b_1xb2-plateau-60e_inria-few-shot-1024x1024.py'
augmentation = 'light'
model = dict(backbone=dict(cache_cfg=dict(dir='work_dirs/sam_features')))
