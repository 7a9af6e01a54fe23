# Low-resolution self-attention (arXiv 2310.05026) in all four stages, in place of the ConvMixer blocks, too.
_base_ = './lale_s1_1xb8-onecycle-400_palette-256x256.py'
model = dict(backbone=dict(attn_cfg=[dict(type='LowResolutionSelfAttention')] * 4))
