# The encoder and decoder alone (UED).
_base_ = './ued-bes-sfm_x10_1xb8-500e_vaihingen-boundary-clean-512x512.py'
model = dict(decode_head=dict(separate_body_edge=False, spatial_fusion=False))
