"""Networks of segmentation_models_pytorch inside mmsegmentation's frame."""

import re
import socket

import pytest
import safetensors.torch
import segmentation_models_pytorch as smp
import timm
import torch
from mmengine.config import Config, ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from lale_mmseg.engine.runner import compile_networks
from lale_mmseg.errors import CheckpointError, ConfigError, DataError
from lale_mmseg.inference.predictor import Predictor
from tests.support import REPO

#: Number of dropouts between the stages of each architecture's decoder, over a ResNet of five maps.
DROPOUTS = {
    'unet': 4,  # five blocks
    'unetplusplus': 10,  # 4 + 3 + 2 + 1 nodes, and the last one
    'manet': 5,  # the attention over the coarsest map, then five blocks
    'linknet': 4,  # five blocks
    'fpn': 4,  # four levels, then the segmentation blocks
    'pspnet': 1,  # pooling, then a convolution
    'deeplabv3': 1,  # ASPP, then a convolution
    'deeplabv3plus': 1,  # ASPP, then the fusion
    'pan': 3,  # pyramid attention, then three upsampling units
    'upernet': 4,  # pooling and three laterals, then the fusion
    'segformer': 5,  # five projections, then the fusion
}


def config(arch: str = 'unet', **changes) -> dict:
    cfg = Config.fromfile(REPO / 'configs/_base_/models/unet_r34.py').model.to_dict()
    cfg['decode_head']['num_classes'] = 2
    head = changes.pop('decode_head', {})
    cfg.update(dict(arch=arch, encoder_name='resnet18', encoder_weights=None) | changes)
    cfg['decode_head'].update(head)
    return cfg


def build(arch: str = 'unet', **changes):
    return MODELS.build(config(arch, **changes))


def smp_names(state: dict) -> dict:
    """Weights under the names of the library."""
    return {name.removeprefix('backbone.').removeprefix('decode_head.'): value for name, value in state.items()}


def scramble(module: nn.Module) -> None:
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.5)


def test_the_list_has_every_architecture():
    assert set(DROPOUTS) | {'dpt'} == set(smp.MODEL_ARCHITECTURES_MAPPING)


@pytest.mark.parametrize('arch', DROPOUTS)
def test_outside_of_training_it_is_the_library_s_network(arch):
    model = build(arch).eval()
    plain = smp.create_model(arch, 'resnet18', encoder_weights=None, classes=2).eval()
    weights = smp_names(model.state_dict())
    assert list(weights) == list(plain.state_dict())
    plain.load_state_dict(weights)
    x = torch.randn(2, 3, 128, 160)
    with torch.no_grad():
        assert torch.equal(model(x, mode='tensor'), plain(x))
        logits = model.encode_decode(x, [dict(img_shape=x.shape[2:])] * 2)
    assert logits.shape == (2, 2, 128, 160)

    def dropouts(network):
        return [module.p for module in network.modules() if isinstance(module, nn.Dropout2d)]

    own = dropouts(plain)
    assert sorted(dropouts(model)) == sorted(own + [0.3] * DROPOUTS[arch])
    assert dropouts(build(arch, decoder_dropout=0)) == own


@pytest.mark.parametrize('arch', DROPOUTS)
def test_every_dropout_is_applied_in_training(arch):
    model = build(arch, decoder_dropout=0.3).eval()
    seen = []
    for module in model.decode_head.modules():
        if isinstance(module, nn.Dropout2d) and module.p == 0.3:
            module.train()
            module.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    with torch.no_grad():
        model(torch.randn(1, 3, 128, 128), mode='tensor')
    assert len(seen) == DROPOUTS[arch]
    for before, after in seen:
        kept = (after != 0).any(dim=(2, 3), keepdim=True)
        torch.testing.assert_close(after, before * kept / 0.7)


def test_losses_and_gradients_of_the_recipe():
    model = build(decoder_dropout=0).train()
    labels = torch.randint(0, 2, (2, 1, 64, 64))
    samples = [SegDataSample() for _ in labels]
    for sample, label in zip(samples, labels, strict=True):
        sample.gt_sem_seg = PixelData(data=label)
    losses = model(torch.randn(2, 3, 64, 64), samples, mode='loss')
    assert set(losses) == {'decode.loss_bce', 'decode.loss_dice', 'decode.acc_seg'}
    (losses['decode.loss_bce'] + losses['decode.loss_dice']).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize('arch', ['unet', 'deeplabv3plus'])
def test_images_of_any_size(arch):
    """Windows and files: tests/test_inference."""
    model = build(arch).eval()
    image = torch.randint(0, 256, (3, 75, 101), dtype=torch.uint8)
    model.test_cfg = ConfigDict(keep_logits=True)
    whole = Predictor(model)(dict(inputs=[image]))[0]
    x = model.data_preprocessor(dict(inputs=[image], data_samples=[SegDataSample()]), False)['inputs']
    assert x.shape == (1, 3, 96, 128)
    with torch.no_grad():
        torch.testing.assert_close(whole.seg_logits.data, model(x, mode='tensor')[0, :, :75, :101])


def test_sizes_that_do_not_fit():
    x = torch.zeros(1, 3, 60, 64)
    with pytest.raises(DataError, match=r'size 60x64: this network requires multiples of 16; set size_divisor=16'):
        build('deeplabv3plus')(x, mode='tensor')
    assert build('unet').eval()(x, mode='tensor').shape == (1, 2, 60, 64)


@pytest.mark.slow
def test_networks_compile_part_by_part():
    torch._dynamo.reset()
    model, x = build().eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(x, mode='tensor')
        compile_networks(model, dict(backend='eager'))
        torch.testing.assert_close(model(x, mode='tensor'), expected)


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_weights_of_a_file_are_loaded_by_init_weights_alone(tmp_path, suffix):
    other = smp.encoders.get_encoder('resnet18', weights=None)
    scramble(other)
    path = tmp_path / f'encoder{suffix}'
    # As torchvision's files have it, with the classifier.
    state = {**other.state_dict(), 'fc.weight': torch.zeros(1000, 512), 'fc.bias': torch.zeros(1000)}
    safetensors.torch.save_file(state, path) if suffix == '.safetensors' else torch.save(state, path)
    model = build(encoder_weights=str(path))
    assert not torch.equal(model.backbone.encoder.conv1.weight, other.conv1.weight)
    model.init_weights()
    found = model.backbone.encoder.state_dict()
    assert all(torch.equal(found[name], value) for name, value in other.state_dict().items())
    four = build(encoder_weights=str(path), in_channels=4, data_preprocessor=None)
    four.init_weights()
    first = torch.cat([other.conv1.weight, other.conv1.weight[:, :1]], dim=1) * 3 / 4
    torch.testing.assert_close(four.backbone.encoder.conv1.weight, first)


def test_weights_of_a_timm_network(tmp_path):
    other = timm.create_model('resnet10t', pretrained=False)
    scramble(other)
    path = tmp_path / 'resnet10t.pth'
    torch.save(other.state_dict(), path)
    model = build(encoder_name='tu-resnet10t', encoder_weights=str(path))
    model.init_weights()
    assert torch.equal(model.backbone.encoder.model.layer1[0].conv1.weight, other.layer1[0].conv1.weight)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """No host is found, and nothing was downloaded before; returns the hosts that were looked up."""
    from huggingface_hub import constants

    asked = []

    def refuse(host, *_, **__):
        asked.append(host)
        raise socket.gaierror(-2, 'Name or service not known')

    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    monkeypatch.setattr(socket, 'create_connection', refuse)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    for name in ('HTTPS_PROXY', 'https_proxy', 'ALL_PROXY', 'all_proxy'):
        monkeypatch.delenv(name, raising=False)
    return asked


@pytest.mark.parametrize('encoder', ['resnet18', 'tu-resnet10t'])
def test_error_without_a_network(encoder, no_network):
    model = build(encoder_name=encoder, encoder_weights='imagenet')
    with pytest.raises(CheckpointError) as caught:
        model.init_weights()
    # One line, as `.` matches no line break.
    assert re.fullmatch(
        rf"pretrained weights 'imagenet' of encoder {encoder} cannot be loaded: .* Set "
        r'model\.encoder_weights=/path/to/file .*--random-init .*',
        str(caught.value),
    )
    assert len(no_network) <= 2  # asked once, not again and again


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'no such file, and the known names are imagenet, ssl, swsl'),
        ({'epoch': 3}, 'expected a state dict'),
        ({'conv1.weight': torch.zeros(1)}, 'Error'),
        ({'model': print}, 'damaged, or contains more than weights and plain data'),
    ],
)
def test_files_that_do_not_fit_are_errors(tmp_path, content, message):
    path = tmp_path / 'weights.pth'
    if content is not None:
        torch.save(content, path)
    model = build(encoder_weights=str(path))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match='of encoder resnet18 cannot be loaded: ') as caught:
        model.init_weights()
    assert message in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(arch='unett'), r"cannot build arch='unett'"),
        (dict(arch='dpt', encoder_name='tu-vit_tiny_patch16_224'), r"decoder_dropout: not supported for arch='dpt'"),
        (dict(encoder_name='tu-hf-hub:someone/network'), 'expected the name of a network of smp or timm'),
        (dict(network_cfg=dict(decoder_chanels=1)), r'network_cfg\.decoder_chanels: unknown .*decoder_channels'),
        (dict(network_cfg=dict(activation='sigmoid')), r'network_cfg\.activation: not supported'),
    ],
)
def test_invalid_fields(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(**changes)


def test_arguments_of_the_library_are_applied():
    model = build(network_cfg=dict(encoder_depth=4, decoder_channels=[64, 48, 32, 24]))
    assert model.decode_head.segmentation_head[0].in_channels == 24
    assert model.backbone.out_channels == (3, 64, 64, 128, 256)
