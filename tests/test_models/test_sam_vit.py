"""SAM's image encoder as a backbone."""

import re

import pytest
import safetensors.torch
import torch
from mmseg.registry import MODELS
from torch import nn

from lale_mmseg.errors import CheckpointError, ConfigError, DataError
from lale_mmseg.models.layers import LoRALinear
from tests.test_models.test_smp_segmentor import no_network, scramble  # noqa: F401

#: The second and the last block attend to the whole image, the others within windows of 14 x 14.
SMALL = dict(embed_dims=32, depth=4, num_heads=2, global_attn_indexes=(1, 3))


def build(**changes):
    options = dict(arch=SMALL, img_size=64)
    model = MODELS.build(dict(type='SAMViT', **(options | changes)))
    for module in model.modules():  # zero at first, so that they would hide mistakes
        for name in ('rel_pos_h', 'rel_pos_w', 'pos_embed'):
            if hasattr(module, name):
                nn.init.normal_(getattr(module, name))
    return model


@pytest.mark.parametrize('size', [(64, 64), (304, 240)])
def test_maps_are_those_of_the_blocks_and_of_the_neck(size):
    model, seen = build(out_indices=(0, 2)), {}
    for number, block in enumerate(model.vit.blocks):
        block.register_forward_hook(lambda module, args, output, number=number: seen.update({number: output}))
    x = torch.randn(2, 3, *size)
    first, third, neck = model(x)
    assert neck.shape == (2, 256, size[0] // 16, size[1] // 16)
    assert model.out_channels == (32, 32, 256)
    assert torch.equal(first, seen[0].permute(0, 3, 1, 2))
    assert torch.equal(third, seen[2].permute(0, 3, 1, 2))
    with torch.no_grad():
        torch.testing.assert_close(neck, model.vit.forward_features(x))


def test_the_neck_alone_and_blocks_alone():
    model, x = build(), torch.randn(1, 3, 64, 64)
    assert [y.shape[1] for y in model(x)] == [256]
    assert model.out_channels == (256,)
    blocks = build(out_indices=(0, 1), out_neck=False)
    blocks.load_state_dict(model.state_dict())
    ran = []
    for number, block in enumerate(blocks.vit.blocks):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    assert [y.shape[1] for y in blocks(x)] == [32, 32]
    assert ran == [0, 1]
    assert blocks.out_channels == (32, 32)


def test_frozen_means_no_gradients_no_graph_and_always_evaluation():
    model = nn.Sequential(build(out_indices=(1,)))
    model.train()
    assert not any(module.training for module in model[0].modules())
    assert not any(p.requires_grad for p in model.parameters())
    x = torch.randn(1, 3, 64, 64, requires_grad=True)
    assert not any(y.requires_grad or y.grad_fn is not None for y in model(x))


@pytest.mark.parametrize('out_neck', [True, False])
def test_thawed_trains_all_that_feeds_a_map(out_neck):
    model = build(frozen=False, out_indices=(1,), out_neck=out_neck).train()
    assert model.vit.blocks[0].training
    sum((y * torch.randn_like(y)).sum() for y in model(torch.randn(1, 3, 64, 64))).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert model.vit.blocks[3].attn.qkv.weight.requires_grad == out_neck


def test_lora_starts_as_the_frozen_encoder_and_trains_its_additions_alone():
    plain, x = build(out_indices=(1,)), torch.randn(1, 3, 64, 96)
    model = build(out_indices=(1,), lora_cfg=dict(rank=2, alpha=4, targets=('qkv', 'fc1'), dropout=0.1))
    missing = model.load_state_dict(plain.state_dict(), strict=False)
    assert missing.unexpected_keys == []
    assert all('.lora_' in name for name in missing.missing_keys)
    assert all(map(torch.equal, model(x), plain(x)))
    model.train()
    assert not model.vit.blocks[0].training
    assert all(layer.training and layer.dropout.training for layer in model.adapters)
    # Four blocks: qkv 2 * 32 + 96 * 2, fc1 2 * 32 + 128 * 2.
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 4 * (256 + 320)
    for layer in model.adapters:
        nn.init.normal_(layer.lora_b)
    sum((y * torch.randn_like(y)).sum() for y in model(x)).backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    model.eval()
    with torch.no_grad():
        expected = model(x)
    model.merge_lora()
    assert model.adapters == []
    assert list(model.state_dict()) == list(plain.state_dict())
    assert not any(p.requires_grad for p in model.parameters())
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)


def test_lora_is_only_where_a_map_depends_on_it():
    model = build(out_indices=(0, 2), out_neck=False, lora_cfg=dict(rank=2))
    found = [name for name, module in model.named_modules() if isinstance(module, LoRALinear)]
    assert found == [f'vit.blocks.{block}.attn.qkv' for block in range(3)]


def published(model) -> dict:
    """The encoder's weights under Meta's names, among those of other parts."""
    state = {
        f'image_encoder.{name.replace("mlp.fc", "mlp.lin")}': value for name, value in model.vit.state_dict().items()
    }
    return {**state, 'prompt_encoder.no_mask_embed.weight': torch.zeros(1, 256), 'mask_decoder.x': torch.zeros(3)}


@pytest.mark.parametrize('lora_cfg', [None, dict(rank=2)])
def test_files_of_meta_and_of_timm(tmp_path, lora_cfg):
    other = build()
    scramble(other)
    torch.save(published(other), tmp_path / 'sam.pth')
    safetensors.torch.save_file(other.vit.state_dict(), tmp_path / 'sam.safetensors')
    for name in ('sam.pth', 'sam.safetensors'):
        model = build(weights=str(tmp_path / name), lora_cfg=lora_cfg)
        model.init_weights()
        found = model.vit.state_dict()
        assert all(torch.equal(found[key], value) for key, value in other.vit.state_dict().items())


def test_names_and_size_of_the_published_encoder():
    """Meta's file has 177 weights of the encoder: position table, patches (2), 12 blocks of 14, neck (6)."""
    with torch.device('meta'):
        model = MODELS.build(dict(type='SAMViT', arch='base'))
    assert len(model.vit.state_dict()) == 1 + 2 + 12 * 14 + 6
    assert model.vit.blocks[2].attn.rel_pos_h.shape == (127, 64)
    assert model.vit.blocks[0].attn.rel_pos_h.shape == (27, 64)
    sizes = {'large': 308_278_272, 'huge': 637_026_048}  # base: test_trainable_parameters.py
    for arch, size in sizes.items():
        with torch.device('meta'):
            model = MODELS.build(dict(type='SAMViT', arch=arch))
        assert sum(p.numel() for p in model.parameters()) == size


def test_files_that_do_not_fit_are_one_error(tmp_path):
    state = published(build())
    del state['image_encoder.blocks.1.attn.qkv.bias']
    state |= {'image_encoder.extra': torch.zeros(1), 'image_encoder.pos_embed': torch.zeros(1, 64, 64, 32)}
    torch.save(state, tmp_path / 'sam.pth')
    with pytest.raises(CheckpointError) as caught:
        build(weights=str(tmp_path / 'sam.pth')).init_weights()
    for problem in ('blocks.1.attn.qkv.bias is missing', 'extra is unexpected',
                    'pos_embed has shape (1, 64, 64, 32) instead of (1, 4, 4, 32)'):  # fmt: skip
        assert problem in str(caught.value)


def test_weights_that_cannot_be_had_are_one_error(no_network, tmp_path):  # noqa: F811
    model = MODELS.build(dict(type='SAMViT', arch='base', weights='sa1b'))
    with pytest.raises(CheckpointError) as caught:
        model.init_weights()
    assert re.fullmatch(
        r"pretrained weights 'sa1b' of SAM encoder base cannot be loaded: .* Set "
        r'model\.backbone\.weights=/path/to/file .*--random-init .*',
        str(caught.value),
    )
    for weights, reason in (
        (str(tmp_path / 'none.pth'), "no such file, and the only known name is 'sa1b'"),
        ('sa1b', 'no published weights for an encoder of custom size'),
    ):
        with pytest.raises(CheckpointError, match=reason):
            build(weights=weights).init_weights()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(out_indices=(4,)), r'out_indices=\(4,\): expected increasing indices from 0 to 3'),
        (dict(out_neck=False), r'out_indices=\(\): expected'),
        (dict(frozen=False, lora_cfg=dict()), r'lora_cfg requires frozen=True'),
        (dict(lora_cfg=dict(), cache_cfg=dict(dir='x')), r'cache_cfg requires frozen=True without lora_cfg'),
    ],
)
def test_invalid_arguments(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(**changes)


def test_image_sizes_must_be_multiples_of_16():
    with pytest.raises(DataError, match='size 40x64: SAM requires multiples of 16'):
        build()(torch.zeros(1, 3, 40, 64))
