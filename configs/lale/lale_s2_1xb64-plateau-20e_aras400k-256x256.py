_base_ = './lale_s1_1xb64-plateau-20e_aras400k-256x256.py'
model = dict(backbone=dict(arch='s2'))
