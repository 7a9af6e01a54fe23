"""What every backbone of this package promises, with every attention: one list, one set of tests."""

import copy

import pytest
import torch
from mmcv.cnn.bricks import LayerScale
from mmseg.registry import MODELS
from torch import Tensor, nn

from lale_mmseg.models import backbones

_SOFTMAX, _LOW = dict(type='MultiHeadAttention'), dict(type='LowResolutionSelfAttention')
_META = dict(type='MetaTokenAttention')
#: The real smallest size of each family, and small networks with the kinds of blocks that it lacks.
BACKBONES = {
    'lale': dict(type='LALE', attn_cfg=_SOFTMAX),
    'lale-lrsa': dict(type='LALE', attn_cfg=_LOW),
    'lale-lrsa-in-all-stages': dict(type='LALE', attn_cfg=[_LOW] * 4),
    'lale-meta': dict(type='LALE', attn_cfg=_META),
    'lale-mixed': dict(type='LALE', attn_cfg=[None, _META, _LOW, _SOFTMAX]),
    'lrformer-t': dict(type='LRFormer', arch='t'),
    'lrformer-pre-norms': dict(
        type='LRFormer',
        arch=dict(
            embed_dims=(16, 32, 64, 96), depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 4), mlp_ratios=(2,) * 4,
            drop_path_rate=0.1, pre_norms=((2, 1), (3, 0)),
        ),
        q_size=(8, 8, 16, 16),
    ),
    'lemevit-tiny': dict(type='LeMeViT', arch='tiny'),
    'lemevit-two-c-blocks': dict(
        type='LeMeViT', arch=dict(depths=(2, 1, 1, 1, 1), embed_dims=(32, 32, 64, 64, 96)), num_meta_tokens=5
    ),
    'ghostnet-x1.0': dict(type='GhostNet', arch='x1.0'),
    'ghostnet-narrow': dict(type='GhostNet', arch=dict(multiplier=0.5)),
}  # fmt: skip
#: Every argument that drops something in training; `attn_cfg` is for its attention.
DROPPING = {
    'lale': (dict(attn_cfg=dict(attn_drop=0.5)), dict(attn_cfg=dict(proj_drop=0.5))),
    'lale-lrsa': (dict(attn_cfg=dict(attn_drop=0.5)), dict(attn_cfg=dict(proj_drop=0.5))),
    'lale-meta': (dict(attn_cfg=dict(attn_drop=0.5)), dict(attn_cfg=dict(proj_drop=0.5))),
    'lrformer-pre-norms': (dict(drop_rate=0.5), dict(attn_drop_rate=0.5), dict(drop_path_rate=0.5)),
    'lemevit-two-c-blocks': (dict(drop_rate=0.5), dict(attn_drop_rate=0.5), dict(drop_path_rate=0.5)),
}
#: Families without such an argument.
DROPS_NOTHING = {'GhostNet'}
#: Networks with other strides and sizes: see test_unet.py and test_sam_vit.py.
OF_OTHER_STRIDES = {'DropoutUNet', 'SAMViT'}
every_backbone = pytest.mark.parametrize('name', BACKBONES)
#: For what takes seconds.
every_backbone_slowly = pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=pytest.mark.slow if name not in ('lale', 'lale-lrsa', 'lale-meta') else ())
        for name in BACKBONES
    ],
)


def build(name: str, **changes) -> nn.Module:
    """A backbone in eval mode, with layer scales, norms and running statistics far from their neutral start."""
    cfg = copy.deepcopy(BACKBONES[name])
    if 'attn_cfg' in changes:
        cfg['attn_cfg'].update(changes.pop('attn_cfg'))
    model = MODELS.build({**cfg, **changes})
    for module in model.modules():
        if isinstance(module, LayerScale):
            nn.init.uniform_(module.weight, 0.5, 1.0)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def run(model: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return list(model(x))


def undropped(name: str) -> dict:
    """What keeps a backbone from dropping anything; LRFormer's sizes come with stochastic depth."""
    return dict(drop_path_rate=0.0) if BACKBONES[name]['type'] == 'LRFormer' else {}


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_list_has_every_backbone_and_every_attention():
    ours = set(backbones.__all__) - OF_OTHER_STRIDES
    assert {cfg['type'] for cfg in BACKBONES.values()} == ours
    assert {BACKBONES[name]['type'] for name in DROPPING} == ours - DROPS_NOTHING
    chosen = {attn['type'] for name in DROPPING if (attn := BACKBONES[name].get('attn_cfg'))}
    ours = {name for name, part in MODELS.module_dict.items() if 'lale_mmseg.models.attention.' in part.__module__}
    assert chosen == ours
    assert len(ours) >= 3


@pytest.mark.parametrize('size', [(95, 127), (16, 400), (1, 1)])
@every_backbone
def test_any_size_gives_maps_at_strides_4_to_32(name, size):
    model = build(name)
    maps = run(model, torch.randn(1, 3, *size))
    assert len(maps) == 4
    for level, (x, width) in enumerate(zip(maps, model.out_channels, strict=True)):
        stride = 4 * 2**level
        assert x.shape == (1, width, -(-size[0] // stride), -(-size[1] // stride))
        assert x.isfinite().all()


@every_backbone
def test_chosen_maps_are_those_of_all_maps(name):
    """Also shows that weights travel through a state dict."""
    model, x = build(name), torch.randn(1, 3, 64, 64)
    some = build(name, out_indices=(model.out_indices[0], model.out_indices[2]))
    some.load_state_dict(model.state_dict())
    maps = run(model, x)
    close(run(some, x), [maps[0], maps[2]])


@every_backbone
def test_bands_are_a_number_like_any_other(name):
    model = build(name, in_channels=4)
    x = torch.randn(1, 4, 64, 64)
    maps = run(model, x)
    assert [y.shape[1] for y in maps] == list(model.out_channels)
    x[:, 3] += 1.0
    assert not torch.allclose(run(model, x)[0], maps[0])


@every_backbone
def test_bf16_autocast_is_close_to_float32(name):
    model, x = build(name), torch.randn(1, 3, 95, 127)
    # Learned scales of branches are float32, and so is the sum of the branches that they scale.
    keeps_float32 = {len(module.weight) for module in model.modules() if isinstance(module, LayerScale)}
    exact = run(model, x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough = run(model, x)
    for found, expected in zip(rough, exact, strict=True):
        assert found.dtype == (torch.float32 if found.shape[1] in keeps_float32 else torch.bfloat16)
        assert found.isfinite().all()
        assert (found.float() - expected).norm() < 0.05 * expected.norm()


@every_backbone
def test_channels_last_changes_nothing_but_the_layout(name):
    model, x = build(name), torch.randn(2, 3, 95, 127)
    expected = run(model, x)
    converted = []

    def check(module, inputs, output):
        is_map = isinstance(output, Tensor) and output.dim() == 4
        if is_map and not output.is_contiguous(memory_format=torch.channels_last):
            converted.append((type(module).__name__, output.shape))

    for module in model.modules():
        module.register_forward_hook(check)
    found = run(model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last))
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in found)
    assert converted == []  # nor is a map inside copied to the other layout
    close(found, expected)


@every_backbone
def test_every_parameter_gets_a_gradient(name):
    model = build(name).train()
    maps = model(torch.randn(2, 3, 95, 127))
    # Random weights of the pixels: a norm's sum of squares, for one, hardly depends on what comes before it.
    sum((y * torch.randn_like(y)).sum() for y in maps).backward()
    missing = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert missing == []


@every_backbone
def test_input_is_not_changed(name):
    model, x = build(name).train(), torch.randn(2, 3, 64, 64)
    before = x.clone()
    model(x)
    assert torch.equal(x, before)


@every_backbone_slowly
def test_compiles_without_graph_breaks(name):
    torch._dynamo.reset()
    model, x = build(name), torch.randn(1, 3, 64, 95)
    compiled = torch.compile(model, fullgraph=True, backend='eager')
    close(run(compiled, x), run(model, x))


@every_backbone_slowly
def test_exports_with_any_batch_size(name):
    model = build(name)
    batch = torch.export.Dim('batch', max=8)
    program = torch.export.export(model, (torch.randn(2, 3, 64, 95),), dynamic_shapes=({0: batch},))
    x = torch.randn(3, 3, 64, 95)
    close(run(program.module(), x), run(model, x))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['lale-meta', 'lemevit-two-c-blocks'])
def test_meta_tokens_export_with_any_height_and_width(name):
    model = build(name)
    height, width = (torch.export.Dim(side, min=64, max=512) for side in ('height', 'width'))
    program = torch.export.export(model, (torch.randn(1, 3, 96, 160),), dynamic_shapes=({2: height, 3: width},))
    for size in ((64, 224), (131, 95)):
        x = torch.randn(1, 3, *size)
        close(run(program.module(), x), run(model, x))


@pytest.mark.parametrize(('name', 'change'), [(name, change) for name, some in DROPPING.items() for change in some])
def test_dropping_is_random_in_training_and_nothing_in_eval(name, change):
    plain, x = build(name, **undropped(name)), torch.randn(2, 3, 64, 64)
    model = build(name, **undropped(name) | change)
    model.load_state_dict(plain.state_dict())
    assert all(map(torch.equal, run(model, x), run(plain, x)))
    model.train()
    assert not torch.equal(run(model, x)[-1], run(model, x)[-1])
