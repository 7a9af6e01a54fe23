"""BodyEdgeHead with each of its parts, on GhostNet and on LALE."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from lale_mmseg.datasets.transforms import label_edges
from lale_mmseg.errors import ConfigError
from lale_mmseg.models.decode_heads import LALEHead
from lale_mmseg.models.layers import MLPDecoder, SpatialFusion
from lale_mmseg.models.layers.body_edge import warp
from tests.support import REPO

BASES = REPO / 'configs' / '_base_' / 'models'
GHOST = dict(
    backbone=dict(arch=dict(_delete_=True, multiplier=0.5)),
    decode_head=dict(in_channels=[12, 20, 56, 80], channels=12),
)
LALE = dict(decode_head=dict(channels=8, decoder=dict(channels=16)))
#: Base of the model and what differs.
NETWORKS = {
    'ued': ('body_edge', GHOST, dict(separate_body_edge=False, spatial_fusion=False)),
    'ued-bes': ('body_edge', GHOST, dict(spatial_fusion=False)),
    'ued-bes-sfm': ('body_edge', GHOST, {}),
    'lale': ('body_edge_lale', LALE, {}),
}
#: The first two are parts of the third, and test_body_edge_reference.py compares them with the published ones.
every_network = pytest.mark.parametrize('name', ['ued-bes-sfm', 'lale'])
#: For what takes seconds.
one_network = pytest.mark.parametrize('name', [pytest.param('ued-bes-sfm', marks=pytest.mark.slow), 'lale'])


def network(name: str, size: int = 96, **head) -> nn.Module:
    base, changes, parts = NETWORKS[name]
    cfg = Config.fromfile(BASES / f'{base}.py')
    cfg.merge_from_dict(dict(model=copy.deepcopy(changes)))
    cfg.merge_from_dict(dict(model=dict(decode_head=dict(num_classes=4, **parts, **head))))
    cfg.model.data_preprocessor.size = (size, size)
    return revert_sync_batchnorm(MODELS.build(cfg.model))


def batch(size: int = 96, count: int = 2, edges: bool = True) -> dict:
    """Images that are darker or brighter by class, and their labels, of which a corner is ignored."""
    inputs, samples = [], []
    for index in range(count):
        labels = torch.zeros(1, size, size, dtype=torch.int64)
        labels[:, size // 3 + 4 * index :] = 1
        labels[:, :, size // 2 :] += 2
        image = 60.0 * labels.expand(3, -1, -1) + torch.randint(0, 20, (3, size, size))
        labels[:, : size // 4, : size // 4] = 255
        sample = SegDataSample(metainfo=dict(img_shape=(size, size), ori_shape=(size, size)))
        sample.gt_sem_seg = PixelData(data=labels)
        if edges:
            found = label_edges(labels[0].numpy())
            sample.set_data(dict(gt_edge_map=PixelData(data=torch.from_numpy(found)[None].long())))
        inputs.append(image)
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def losses_of(model: nn.Module, data: dict) -> dict[str, torch.Tensor]:
    losses = model(**model.data_preprocessor(copy.deepcopy(data), training=True), mode='loss')
    return {name.removeprefix('decode.'): value for name, value in losses.items()}


def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    return sum(value for name, value in losses.items() if 'loss' in name)


def whole(name: str) -> nn.Module:
    """Backbone and head as one module."""
    model = network(name).eval()
    return nn.Sequential(model.backbone, model.decode_head)


def forward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model.decode_head(model.backbone(x))


def test_fusion_by_hand():
    """Rows are x + 1, columns 0.1 x and pixels -x of x = body + edge = [[1, 3], [2, 4]].

    Means of rows 3, 4 and of columns 0.15, 0.35; products [[0.45, 1.05], [0.6, 1.4]]; minus x [[-0.55, -1.95],
    [-1.4, -2.6]]; sigmoids [[0.365864, 0.124553], [0.197816, 0.069138]]. Body times them plus edge times the rest:
    [[1 s, 2 s + 1 - s], [3 s - (1 - s), 4 s]].
    """
    fusion = SpatialFusion(1)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.zero_()
        fusion.rows.weight[0, 0, 1, 1], fusion.rows.bias[0] = 1.0, 1.0
        fusion.columns.weight[0, 0, 1, 1] = 0.1
        fusion.pixels.weight[0] = -1.0
        body = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
        edge = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])[None, None]
        fused, score = fusion(body, edge)
    expected = torch.tensor([[0.365864, 0.124553], [0.197816, 0.069138]])
    torch.testing.assert_close(score[0, 0], expected, rtol=0, atol=1e-6)
    expected = torch.tensor([[0.365864, 1.124553], [-0.208736, 0.276552]])
    torch.testing.assert_close(fused[0, 0], expected, rtol=0, atol=2e-6)


def test_warping_by_hand():
    """At rest the corners of a 2x2 map are sampled at the corners of their pixels, half a pixel outside both ways.

    So a quarter of each is seen. A flow of 1 along W moves by half a pixel: the left column is met in its middle (half
    outside along H), the right one is left. A flow of -1 along H moves the lower row up into its middle.
    """
    x = torch.tensor([[4.0, 8.0], [12.0, 16.0]])[None, None]
    flow = torch.zeros(1, 2, 2, 2)
    assert warp(x, flow)[0, 0].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    flow[:, 0] = 1.0
    assert warp(x, flow)[0, 0].tolist() == [[2.0, 0.0], [6.0, 0.0]]
    flow = torch.zeros(1, 2, 2, 2)
    flow[:, 1, 1] = -1.0
    assert warp(x, flow)[0, 0].tolist() == [[1.0, 2.0], [6.0, 8.0]]


def test_the_decoder_of_lale_is_that_of_its_head():
    widths = (32, 64, 128, 256)
    head = LALEHead(widths, 16, num_classes=3, norm_cfg=dict(type='BN'), dropout_ratio=0.0).eval()
    decoder = MLPDecoder(widths, 16, norm_cfg=dict(type='BN')).eval()
    weights = {name: value for name, value in head.state_dict().items() if not name.startswith('conv_seg.')}
    decoder.load_state_dict(weights)
    maps = [torch.randn(1, width, 16 >> level, 16 >> level) for level, width in enumerate(widths)]
    assert torch.equal(head.conv_seg(decoder(maps)), head(maps))


@every_network
@pytest.mark.parametrize('size', [(95, 127), (17, 400), (1, 1)])
def test_images_of_any_size_give_logits_at_stride_4_and_predictions_at_their_size(name, size):
    model, x = network(name).eval(), torch.randn(1, 3, *size)
    with torch.no_grad():
        assert forward(model, x).shape == (1, 4, -(-size[0] // 4), -(-size[1] // 4))
        meta = dict(img_shape=size, ori_shape=size)
        logits = model.encode_decode(x, [meta])
    assert logits.shape == (1, 4, *size)
    assert logits.isfinite().all()


@every_network
def test_every_parameter_gets_a_gradient_and_few_steps_learn(name):
    torch.manual_seed(0)
    model, data = network(name, size=64), batch(64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    history = []
    for _ in range(10):
        losses = losses_of(model, data)
        optimizer.zero_grad()
        total(losses).backward()
        if not history:
            unused = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
            assert unused == []
        optimizer.step()
        history.append(total(losses).item())
    assert history[-1] < 0.7 * history[0]


def test_losses_have_their_names_and_are_added_under_one_name():
    data = batch()
    assert set(losses_of(network('ued'), batch(edges=False))) == {'loss_ce', 'acc_seg'}
    joined = network('ued-bes-sfm', loss_edge=dict(type='BinaryEdgeLoss', loss_name='loss_body')).eval()
    model = network('ued-bes-sfm').eval()
    model.load_state_dict(joined.state_dict())
    losses, found = losses_of(model, data), losses_of(joined, data)
    assert set(losses) == {'loss_ce', 'loss_body', 'loss_edge', 'acc_seg'}
    assert set(found) == {'loss_ce', 'loss_body', 'acc_seg'}
    assert found['loss_body'].item() == pytest.approx((losses['loss_body'] + losses['loss_edge']).item())


def test_each_loss_compares_its_own_logits_and_target():
    """Logits are resized with aligned corners."""
    model, data = network('ued-bes-sfm').eval(), batch()  # eval: batch norm must not move
    head = model.decode_head
    prepared = model.data_preprocessor(copy.deepcopy(data), training=True)
    with torch.no_grad():
        maps = model.backbone(prepared['inputs'])
        losses, found = head.loss(maps, prepared['data_samples'], {}), head.outputs(maps)
    labels = torch.cat([sample.gt_sem_seg.data for sample in prepared['data_samples']])
    edges = torch.cat([sample.gt_edge_map.data for sample in prepared['data_samples']])
    assert {0, 1, 255} == set(edges.unique().tolist())
    large = [nn.functional.interpolate(y, (96, 96), mode='bilinear', align_corners=True) for y in found[:3]]
    assert losses['loss_ce'] == pytest.approx(nn.functional.cross_entropy(large[0], labels, ignore_index=255).item())
    assert losses['loss_body'] == pytest.approx(head.loss_body(large[1], labels).item())
    valid = edges != 255
    expected = nn.functional.binary_cross_entropy_with_logits(large[2][:, 0][valid], edges[valid].float())
    assert losses['loss_edge'] == pytest.approx(expected.item())


def test_images_of_ignored_pixels_alone_give_losses_of_zero():
    data = batch()
    for sample in data['data_samples']:
        sample.gt_sem_seg.data.fill_(255)
        sample.gt_edge_map.data.fill_(255)
    model = network('ued-bes-sfm')
    loss = total(losses_of(model, data))
    loss.backward()
    assert loss == 0
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_sampler_applies_to_the_segmentation_loss_alone():
    plain, data = network('ued-bes-sfm').eval(), batch()
    hard = network('ued-bes-sfm', sampler=dict(type='OHEMPixelSampler', thresh=0.1, min_kept=50)).eval()
    hard.load_state_dict(plain.state_dict())
    expected, found = losses_of(plain, data), losses_of(hard, data)
    assert {name for name in expected if found[name] != expected[name]} == {'loss_ce'}


@every_network
def test_bf16_autocast_trains_and_predicts_close_to_float32(name):
    model, data = network(name), batch()
    exact = total(losses_of(model, data))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = losses_of(model, data)
    assert all(value.dtype == torch.float32 for value in losses.values())
    total(losses).backward()
    assert total(losses).item() == pytest.approx(exact.item(), rel=0.05)
    assert all(p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    x = torch.randn(1, 3, 95, 127)
    with torch.no_grad():
        expected = forward(model, x)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            found = forward(model, x)
    assert found.dtype == torch.bfloat16
    assert (found - expected).norm() < 0.1 * expected.norm()


@every_network
def test_channels_last_changes_nothing_but_the_layout(name):
    model, x = network(name).eval(), torch.randn(2, 3, 95, 127)
    converted = []

    def check(module, inputs, output):
        is_map = isinstance(output, torch.Tensor) and output.dim() == 4
        if is_map and not output.is_contiguous(memory_format=torch.channels_last):
            converted.append((type(module).__name__, output.shape))

    with torch.no_grad():
        expected = forward(model, x)
        model = model.to(memory_format=torch.channels_last)
        for module in model.modules():
            module.register_forward_hook(check)
        found = forward(model, x.to(memory_format=torch.channels_last))
    assert converted == []
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@one_network
def test_compiles_without_graph_breaks(name):
    torch._dynamo.reset()
    model, x = whole(name), torch.randn(1, 3, 64, 95)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend='eager')
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


@one_network
def test_exports_with_any_height_and_width(name):
    model = whole(name)
    height, width = (torch.export.Dim(side, min=64, max=1024) for side in ('height', 'width'))
    program = torch.export.export(model, (torch.randn(1, 3, 96, 160),), dynamic_shapes=({2: height, 3: width},))
    for size in ((64, 224), (131, 95)):
        x = torch.randn(1, 3, *size)
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(separate_body_edge=False), 'spatial_fusion=True requires separate_body_edge=True'),
        (dict(num_classes=1), 'single output channel'),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message):
        MODELS.build(dict(type='BodyEdgeHead', **{'num_classes': 3, **arguments}))


def test_edge_targets_that_are_missing_or_of_another_size():
    model = network('ued-bes')
    with pytest.raises(ConfigError, match=r'no edge targets; add dict\(type="LabelEdges"\) to train_dataloader'):
        losses_of(model, batch(edges=False))
    data = batch()
    for sample in data['data_samples']:
        wider = nn.functional.pad(sample.gt_edge_map.data, (0, 1))
        del sample.gt_edge_map
        sample.set_data(dict(gt_edge_map=PixelData(data=wider)))
    with pytest.raises(ConfigError, match=r'after all steps that change the size'):
        losses_of(model, data)
