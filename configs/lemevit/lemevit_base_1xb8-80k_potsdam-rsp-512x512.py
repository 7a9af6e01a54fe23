# LeMeViT-base with UPerNet on ISPRS Potsdam with the paper's recipe, under protocol C as published: validation is on
# the test tiles, so they choose nothing and the last checkpoint is the one to test.
_base_ = [
    '../_base_/models/lemevit_base_upernet.py',
    '../_base_/datasets/potsdam_rsp.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_lemevit_80k.py',
]
model = dict(test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(384, 384)))
default_hooks = dict(checkpoint=dict(save_best=None))
