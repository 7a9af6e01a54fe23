# LeMeViT-tiny with the light head of LALE, from scratch, on your own images in 400 iterations (docs/own_data.md).
_base_ = '../lale/lale_s1_1xb8-onecycle-400_palette-256x256.py'
model = dict(
    backbone=dict(_delete_=True, type='LeMeViT', arch='tiny', in_channels=3),
    decode_head=dict(in_channels=[64, 128, 192, 320]),
)
