# LRFormer-L+ on the real part of ARAS400k with the paper's recipe for ADE20K.
_base_ = [
    '../_base_/models/lrformer_l_mask2former.py',
    '../_base_/datasets/aras400k_iterations.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_lrformer_plus_160k.py',
]
model = dict(data_preprocessor=dict(size=(256, 256)))
