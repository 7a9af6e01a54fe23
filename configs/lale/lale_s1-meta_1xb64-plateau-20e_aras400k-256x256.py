# Meta tokens (after arXiv 2405.09789) in stages 3 and 4: cost linear in pixels.
_base_ = './lale_s1_1xb64-plateau-20e_aras400k-256x256.py'
model = dict(backbone=dict(attn_cfg=dict(type='MetaTokenAttention')))
