# ARAS400k for schedules by iterations.
_base_ = './aras400k.py'
train_dataloader = dict(batch_size=16, sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True))
