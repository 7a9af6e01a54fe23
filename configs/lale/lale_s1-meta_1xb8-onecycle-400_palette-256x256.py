# Meta tokens (after arXiv 2405.09789) in stages 3 and 4: cost linear in pixels.
_base_ = './lale_s1_1xb8-onecycle-400_palette-256x256.py'
model = dict(backbone=dict(attn_cfg=dict(type='MetaTokenAttention')))
