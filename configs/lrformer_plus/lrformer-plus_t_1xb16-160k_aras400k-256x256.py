# LRFormer-T+ on the real part of ARAS400k with the paper's recipe for ADE20K.
_base_ = [
    '../_base_/models/lrformer_mask2former.py',
    '../_base_/datasets/aras400k.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_lrformer_plus_160k.py',
]
model = dict(data_preprocessor=dict(size=(256, 256)))
train_dataloader = dict(batch_size=16, sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True))
