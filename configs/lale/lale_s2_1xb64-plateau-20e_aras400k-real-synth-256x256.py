# All real pairs and all synthetic ones; other proportions change `parts`, for example dict(real=1.0, synthetic=0.25).
_base_ = './lale_s2_1xb64-plateau-20e_aras400k-256x256.py'
train_dataloader = dict(dataset=dict(parts=dict(real=1.0, synthetic=1.0)))
