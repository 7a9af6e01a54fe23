# Without spatial fusion (SFM): body and edge are added.
_base_ = './ued-bes-sfm_x10_1xb8-500e_vaihingen-boundary-clean-512x512.py'
model = dict(decode_head=dict(spatial_fusion=False))
