# LALE-S1 with body-edge separation and spatial fusion over its fused map at stride 4. Other sizes and attentions as in
# lale.py, parts of the head as in body_edge.py, whose edge targets training needs.
_base_ = './body_edge.py'
model = dict(
    backbone=dict(_delete_=True, type='LALE', arch='s1', in_channels=3, attn_cfg=dict(type='MultiHeadAttention')),
    decode_head=dict(
        in_channels=[32, 64, 128, 256],
        channels=32,
        decoder=dict(_delete_=True, type='MLPDecoder', channels=128),
    ),
)
