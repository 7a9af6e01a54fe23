# With a wider encoder, GhostNet x1.3.
_base_ = './ued-bes-sfm_x10_1xb8-500e_vaihingen-boundary-clean-512x512.py'
model = dict(backbone=dict(arch='x1.3'), decode_head=dict(in_channels=[32, 52, 144, 208], channels=32))
