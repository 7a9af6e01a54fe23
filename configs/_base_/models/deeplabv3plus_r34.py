# DeepLabV3+ (arXiv 1802.02611) over an ImageNet ResNet-34. The library's own dropout inside ASPP is off: the one
# between ASPP and the block that fuses it with the finer map follows soon.
_base_ = './unet_r34.py'
model = dict(arch='deeplabv3plus', network_cfg=dict(decoder_aspp_dropout=0.0))
