# LRFormer-T+ on ISPRS Potsdam with the paper's recipe for ADE20K, under protocol A.
_base_ = [
    '../_base_/models/lrformer_mask2former.py',
    '../_base_/datasets/potsdam_geoseg.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_lrformer_plus_160k.py',
]
train_dataloader = dict(batch_size=16)
model = dict(test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))
