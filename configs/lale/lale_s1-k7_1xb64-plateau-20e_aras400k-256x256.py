# The baseline of the paper's ablation: 7x7 kernels, LayerNorm and GELU instead of 3x3, RMSNorm and StarReLU.
_base_ = './lale_s1_1xb64-plateau-20e_aras400k-256x256.py'
model = dict(
    backbone=dict(kernel_size=7, norm_cfg=dict(type='LayerNorm2d', eps=1e-6), act_cfg=dict(type='GELU')),
    decode_head=dict(act_cfg=dict(type='GELU')),
)
