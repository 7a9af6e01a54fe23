# Low-resolution self-attention (arXiv 2310.05026) in stages 3 and 4: cost linear in pixels.
_base_ = './lale_s2_1xb64-plateau-20e_aras400k-256x256.py'
model = dict(backbone=dict(attn_cfg=dict(type='LowResolutionSelfAttention')))
