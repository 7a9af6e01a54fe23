"""Networks rebuilt from checkpoints, which may be hostile."""

import ast
import importlib.util
import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from lale_mmseg.datasets import transforms
from lale_mmseg.engine.checkpoint import DESCRIPTION_KEY, describe
from lale_mmseg.errors import CheckpointError, ConfigError
from lale_mmseg.inference import Predictor, TestOptions
from lale_mmseg.inference.harmless import ALLOWED_MODULES, REFUSED_ARGUMENTS


def config(**backbone) -> Config:
    bands = backbone.get('in_channels', 3)
    preprocessor = dict(
        type='ChannelsLastDataPreProcessor', mean=[100.0] * bands, std=[50.0] * bands, bgr_to_rgb=bands == 3
    )
    head = dict(type='LALEHead', num_classes=3, norm_cfg=dict(type='SyncBN'))
    model = dict(
        type='EncoderDecoder',
        data_preprocessor=preprocessor,
        backbone=dict(type='LALE', **backbone),
        decode_head=head,
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )
    pipeline = [dict(type='LoadBands', bands=[1, 2, 3, 4]) if bands == 4 else dict(type='LoadBands')]
    return Config(dict(model=model, test_dataloader=dict(dataset=dict(pipeline=pipeline))))


def save(path, cfg, model=None, **changes):
    model = model or MODELS.build(cfg.model)
    text = describe(cfg, dict(classes=('a', 'b', 'c'), palette=[[1, 1, 1], [2, 2, 2], [3, 3, 3]]))
    content = {**json.loads(text), **changes}
    torch.save({'state_dict': model.state_dict(), DESCRIPTION_KEY: json.dumps(content)}, path)
    return path


def test_rebuilds_the_network_and_normalizes_as_in_training(tmp_path):
    cfg = config()
    model = MODELS.build(cfg.model)
    predictor = Predictor.from_checkpoint(save(tmp_path / 'x.pth', cfg, model))
    assert predictor.classes == ('a', 'b', 'c')
    image = np.random.default_rng(0).integers(0, 255, (45, 70, 3)).astype(np.uint8)
    rgb = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None]
    reference = model.eval().backbone((rgb - 100.0) / 50.0)
    head = predictor.model.decode_head  # its SyncBN became BN, with the same weights
    expected = torch.nn.functional.interpolate(head(reference), size=(45, 70), mode='bilinear', align_corners=False)
    with torch.no_grad():
        logits = predictor.logits(image)
    torch.testing.assert_close(logits, expected[0], rtol=1e-3, atol=1e-4)
    assert np.array_equal(predictor.predict(image), expected[0].argmax(0).numpy())


def test_bands_come_from_the_pipeline_of_the_config(tmp_path):
    predictor = Predictor.from_checkpoint(save(tmp_path / 'x.pth', config(in_channels=4)))
    assert predictor.bands == (1, 2, 3, 4)
    assert predictor.predict(np.zeros((40, 40, 4), np.float32)).shape == (40, 40)


def test_test_cfg_of_the_checkpoint_is_followed_unless_overridden(tmp_path):
    cfg = config()
    cfg.model.test_cfg = dict(mode='slide', crop_size=(64, 64), stride=(48, 48), keep_logits=True)
    cfg.tta_cfg = dict(views='flips')
    path = save(tmp_path / 'x.pth', cfg)
    predictor = Predictor.from_checkpoint(path)  # logits are kept on request only
    assert predictor.options == TestOptions('slide', (64, 64), (48, 48))
    predictor = Predictor.from_checkpoint(path, overrides={'model.test_cfg.keep_logits': True}, tta=True)
    assert predictor.options == TestOptions('slide', (64, 64), (48, 48), views='flips', keep_logits=True)
    cfg.model.test_cfg = None
    assert Predictor.from_checkpoint(save(tmp_path / 'y.pth', cfg)).options == TestOptions()
    with pytest.raises(ConfigError, match=r"unknown config field 'modl'; did you mean 'model'"):
        Predictor.from_checkpoint(path, overrides={'modl.test_cfg.mode': 'whole'})


def tampered(path, **model):
    """Changes the description of a saved checkpoint."""
    checkpoint = torch.load(path, weights_only=True)
    content = json.loads(checkpoint[DESCRIPTION_KEY])
    content['config']['model'].update(model)
    torch.save({**checkpoint, DESCRIPTION_KEY: json.dumps(content)}, path)
    return path


@pytest.mark.parametrize('kind', ['os.system', 'subprocess.run', 'NoSuchBackbone', 'mmdet.LAD', 'TIMMBackbone_'])
def test_types_that_are_no_plain_network_are_refused(tmp_path, kind):
    bait = tmp_path / 'executed'
    path = tampered(save(tmp_path / 'x.pth', config()), backbone=dict(type=kind, command=f'touch {bait}'))
    with pytest.raises(CheckpointError, match=rf"x\.pth: model\.backbone\.type is '{kind}'"):
        Predictor.from_checkpoint(path)
    assert not bait.exists()


class Bait:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


def test_a_description_cannot_make_a_registered_class_unpickle_a_file(tmp_path):
    """A detector with a teacher reads the teacher's checkpoint, with code in it, while it is built."""
    bait = tmp_path / 'executed'
    torch.save({'state_dict': {}, 'extra': Bait(bait)}, tmp_path / 'inner.pth')
    cfg = config()
    teacher = dict(type='mmdet.KnowledgeDistillationSingleStageDetector', teacher_ckpt=str(tmp_path / 'inner.pth'))
    with pytest.raises(CheckpointError, match='may not load files'):
        Predictor.from_checkpoint(tampered(save(tmp_path / 'a.pth', cfg), **teacher))
    pretrained = dict(type='LALE', init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'inner.pth')))
    Predictor.from_checkpoint(tampered(save(tmp_path / 'b.pth', cfg), backbone=pretrained))  # dropped: weights follow
    Predictor.from_checkpoint(tampered(save(tmp_path / 'c.pth', cfg), pretrained=str(tmp_path / 'inner.pth')))
    Predictor.from_checkpoint(tampered(save(tmp_path / 'd.pth', cfg), _scope_='mmseg'))  # of a base of mmseg
    with pytest.raises(CheckpointError, match='_scope_'):
        Predictor.from_checkpoint(tampered(save(tmp_path / 'e.pth', cfg), _scope_='antigravity'))
    assert not bait.exists()


def test_timm_cannot_be_asked_for_a_network_from_a_hub(tmp_path):
    backbone = dict(type='TIMMBackbone', model_name='hf-hub:someone/network')
    path = tampered(save(tmp_path / 'x.pth', config()), backbone=backbone)
    with pytest.raises(CheckpointError, match=r"model\.backbone\.model_name is 'hf-hub:someone/network'"):
        Predictor.from_checkpoint(path)


@pytest.mark.parametrize('name', ['CrossEntropyLoss', 'LovaszLoss', 'TverskyLoss'])
def test_a_loss_cannot_unpickle_its_class_weights(tmp_path, name):
    bait, weights = tmp_path / 'executed', tmp_path / 'weights.pkl'
    weights.write_bytes(pickle.dumps(Bait(bait)))
    loss = dict(type=name, class_weight=str(weights))
    path = tampered(save(tmp_path / 'x.pth', config()), decode_head=dict(type='LALEHead', loss_decode=[loss]))
    with pytest.raises(CheckpointError, match=r"model\.decode_head\.loss_decode\.0\.class_weight is '.*weights\.pkl'"):
        Predictor.from_checkpoint(path)
    assert not bait.exists()


def test_constructors_of_allowed_parts_read_files_by_refused_arguments_only():
    """Places in the allowed modules that read a file, beside `init_weights`, which a predictor never calls.

    Our own parts read weights with `weights_only` and in `init_weights` alone.
    """
    reads = re.compile(r'\b(torch\.load|_?load_checkpoint|np\.load|mmengine\.load|open|load_url|torch\.hub\.\w+)\(')
    found = set()
    for allowed in ALLOWED_MODULES:
        package = allowed.rpartition('.')[0]
        if not package.startswith(('torch', 'lale_mmseg')):
            root = Path(importlib.util.find_spec(package).origin)
            for file in root.parent.rglob('*.py') if root.name == '__init__.py' else [root]:
                functions = (
                    node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)
                )
                found |= {(file.stem, node.name) for node in functions if reads.search(ast.unparse(node))}
    assert {place for place in found if place[1] != 'init_weights'} == {
        ('utils', 'get_class_weight'),  # `class_weight` of losses
        ('vpd', '__init__'),  # `class_embed_path` and `checkpoint` in `diffusion_cfg`
        ('weight_init', '__call__'),  # of `init_cfg`, in `init_weights`
    }
    assert {'class_embed_path', 'diffusion_cfg', 'checkpoint'} <= set(REFUSED_ARGUMENTS)


def test_steps_that_are_not_repeated_are_named_and_wrappers_are_searched(tmp_path):
    cfg = config(in_channels=4)
    pipeline = [dict(type='mmseg.LoadBands', bands=[4, 3, 2, 1]), dict(type='Resize', scale=(64, 64))]
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[dict(pipeline=pipeline)])
    predictor = Predictor.from_checkpoint(save(tmp_path / 'x.pth', cfg))
    assert predictor.bands == (4, 3, 2, 1)
    assert predictor.other_steps == ('Resize',)


@pytest.mark.parametrize('name', [name for name in transforms.__all__ if name.startswith('Load')])
def test_steps_that_load_are_not_named(tmp_path, name):
    cfg = config()
    pipeline = [dict(type='LoadBands'), dict(type=name), dict(type='PackSegInputs')]
    cfg.test_dataloader.dataset = dict(pipeline=pipeline)
    assert Predictor.from_checkpoint(save(tmp_path / 'x.pth', cfg)).other_steps == ()


def test_a_network_of_another_version_is_named(tmp_path):
    cfg = config()
    path = save(tmp_path / 'x.pth', cfg)
    checkpoint = torch.load(path, weights_only=True)
    content = json.loads(checkpoint[DESCRIPTION_KEY])
    content['config']['model']['backbone']['gone'] = 1
    torch.save({**checkpoint, DESCRIPTION_KEY: json.dumps(content)}, path)
    with pytest.raises(CheckpointError, match=r'cannot be built with this version .*gone'):
        Predictor.from_checkpoint(path)


def test_a_checkpoint_without_classes_is_named(tmp_path):
    path = save(tmp_path / 'x.pth', config(), classes=[])
    with pytest.raises(CheckpointError, match=r'x\.pth: its description has no class names'):
        Predictor.from_checkpoint(path)
