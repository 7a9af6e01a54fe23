"""The U-Net that is trained from random weights."""

import torch
from mmseg.models.backbones import UNet
from mmseg.registry import MODELS
from torch import nn


def build(**changes) -> nn.Module:
    return MODELS.build(dict(type='DropoutUNet', base_channels=8, norm_cfg=dict(type='BN'), **changes))


def test_it_is_mmsegmentation_s_network_with_dropout_between_decoder_stages():
    model, plain = build(), UNet(base_channels=8)
    model.eval()
    plain.eval()
    assert list(model.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 64, 80)
    with torch.no_grad():
        maps = model(x)
        assert all(map(torch.equal, maps, plain(x)))
    assert [tuple(y.shape[1:]) for y in maps] == [
        (128, 4, 5), (64, 8, 10), (32, 16, 20), (16, 32, 40), (8, 64, 80)
    ]  # fmt: skip
    assert model.out_channels == (128, 64, 32, 16, 8)


def test_dropout_is_behind_all_decoder_stages_but_the_last():
    model = build()
    places = [name for name, module in model.named_modules() if isinstance(module, nn.Dropout2d)]
    assert places == [f'decoder.{stage}.stage_dropout' for stage in (1, 2, 3)]
    order, kept = [], []
    for stage, block in enumerate(model.decoder):
        block.register_forward_hook(lambda module, args, output, stage=stage: order.append(stage))
        if stage:
            block.stage_dropout.register_forward_hook(
                lambda module, args, output: kept.append((output != 0).any(dim=(2, 3)).float().mean().item())
            )
    model.eval()
    for stage in (1, 2, 3):
        model.decoder[stage].stage_dropout.train()
    with torch.no_grad():
        model(torch.randn(16, 3, 32, 32))
    assert order == [3, 2, 1, 0]  # the last one, at full size, drops nothing
    assert len(kept) == 3
    assert all(0.4 < share < 0.85 for share in kept)  # 0.7, less what the activation left empty
