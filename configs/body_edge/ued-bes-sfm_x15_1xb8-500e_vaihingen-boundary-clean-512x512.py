# With a wider encoder, GhostNet x1.5.
_base_ = './ued-bes-sfm_x10_1xb8-500e_vaihingen-boundary-clean-512x512.py'
model = dict(backbone=dict(arch='x1.5'), decode_head=dict(in_channels=[36, 60, 168, 240], channels=36))
