"""Converters of published checkpoints, on made-up ones with the published names and shapes."""

import json
import os
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmseg.registry import MODELS

from lale_mmseg.engine.checkpoint import load_weights, read_checkpoint
from lale_mmseg.engine.pretrained import load_pretrained_parts, take_pretrained_parts
from lale_mmseg.errors import CheckpointError, ConfigError
from tests.published import BACKBONES, facts, parameters_in, published_state
from tests.support import REPO, run_tool
from tools.model_converters import conversion, lemevit, lrformer

FAMILIES = {'lrformer': lrformer.FAMILY, 'lemevit': lemevit.FAMILY}
PREFIXES = ('', 'module.backbone.', 'backbone.module.')
#: Entry that is reported, and how it lies in the file.
WRAPPINGS = {
    '': lambda state: state,
    'model': lambda state: {'model': state, 'epoch': 3},
    'state_dict': lambda state: {'state_dict': state, 'meta': {}},
    'state_dict_ema': lambda state: {'state_dict': {'other': torch.zeros(1)}, 'state_dict_ema': state},
    'model.state_dict': lambda state: {'model': {'state_dict': state}, 'optimizer': {'lr': 0.1}},
}


def family_of(name: str):
    return FAMILIES[name.partition('_')[0]]


def renamed(state: dict, prefix: str) -> dict:
    return {prefix + name: value for name, value in state.items()}


def segmentor(name: str, head: dict, device: str = 'meta') -> dict:
    """A published segmentor: a backbone, and a head with names as given."""
    return {**renamed(published_state(name, device), 'backbone.'), **head}


def lr_head(device: str = 'meta') -> dict:
    return renamed(published_state('lrhead_t', device), 'decode_head.')


def convert_file(family, *words) -> None:
    conversion.run_converter(family, conversion.parse_args(family, [str(word) for word in words]))


@pytest.mark.parametrize('name', BACKBONES)
def test_every_published_size_is_recognised_and_filled_and_every_name_accounted_for(name):
    state = published_state(name, 'meta')
    result = conversion.convert(state, family_of(name))
    assert result.arch == name.partition('_')[2]
    result.check(name)
    assert sorted([*result.used.values(), *result.unused]) == sorted(state)
    assert parameters_in(state) == facts(name)['params']
    with torch.device('meta'):
        model = MODELS.build(dict(type=family_of(name).backbone, arch=result.arch))
    assert set(result.state) == set(model.state_dict())
    dropped = parameters_in({theirs: state[theirs] for theirs in result.unused})
    assert sum(parameter.numel() for parameter in model.parameters()) == facts(name)['params'] - dropped


def test_unused_of_lrformer_is_nothing_and_of_lemevit_what_feeds_no_map():
    assert conversion.convert(published_state('lrformer_t', 'meta'), lrformer.FAMILY).unused == {}
    unused = conversion.convert(published_state('lemevit_tiny', 'meta'), lemevit.FAMILY).unused
    assert set(unused.values()) == {'feeds no feature map'}
    pattern = r'meta_token_downsample\.[34]\.|norm_c\.|norm\.|stages\.2\.1\.attn\.proj_c\.(weight|bias)$'
    assert [name for name in unused if not re.match(pattern, name)] == []


@pytest.mark.parametrize('entry', WRAPPINGS)
@pytest.mark.parametrize(('name', 'prefix'), zip(['lrformer_t', 'lemevit_tiny', 'lemevit_tiny'], PREFIXES, strict=True))
def test_all_prefixes_and_entries_are_understood(name, prefix, entry):
    plain = published_state(name, 'meta')
    reasons = {'head.weight': 'classifier', 'classifier.bias': 'classifier', 'pos.weight': 'no such weight here'}
    strangers = dict.fromkeys(reasons, torch.zeros(2)) | {'epoch': 7}
    content = WRAPPINGS[entry](renamed({**plain, **strangers}, prefix))
    state, where, passed_over = conversion.find_state(content, 'x.pth')
    assert where == entry
    assert passed_over == (['state_dict'] if entry == 'state_dict_ema' else [])
    result = conversion.convert(state, family_of(name), 'x.pth')
    expected = conversion.convert(plain, family_of(name))
    assert result.used == {ours: prefix + theirs for ours, theirs in expected.used.items()}
    assert result.missing == []
    assert result.unused == renamed({**expected.unused, **reasons, 'epoch': 'no tensor'}, prefix)


def test_which_weights_of_several_can_be_chosen():
    content = {'state_dict': {'a': torch.zeros(1)}, 'state_dict_ema': {'b': torch.zeros(1)}}
    assert conversion.find_state(content, 'x.pth')[1:] == ('state_dict_ema', ['state_dict'])
    chosen, *rest = conversion.find_state(content, 'x.pth', 'state_dict')
    assert (list(chosen), rest) == (['a'], ['state_dict', ['state_dict_ema']])
    inside = {'model_ema': content, 'model': {'c': torch.zeros(1)}, 'state_dict': {'d': torch.zeros(1)}}
    assert conversion.find_state(inside, 'x.pth')[1:] == (
        'model_ema.state_dict_ema',
        ['state_dict', 'model', 'model_ema.state_dict'],
    )
    with pytest.raises(CheckpointError, match=r"x\.pth: no weights under 'model'; found 'state_dict_ema'"):
        conversion.find_state(content, 'x.pth', 'model')


def test_a_segmentor_with_lrhead_keeps_its_parts_and_loads_whole(tmp_path):
    torch.save({'state_dict': segmentor('lrformer_t', lr_head('cpu'), 'cpu')}, tmp_path / 'official.pth')
    convert_file(lrformer.FAMILY, tmp_path / 'official.pth', tmp_path / 'out.pth')
    state = read_checkpoint(tmp_path / 'out.pth')['state_dict']
    cfg = Config.fromfile(REPO / 'configs' / '_base_' / 'models' / 'lrformer.py')
    cfg.model.decode_head.num_classes = 150
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    load_weights(model, state, 'out.pth')  # as load_from does
    # And the backbone alone, as init_cfg does.
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'out.pth'), prefix='backbone.')
    alone = torch.nn.ModuleDict(dict(backbone=MODELS.build(dict(type='LRFormer', arch='t', init_cfg=init_cfg))))
    load_pretrained_parts(take_pretrained_parts(alone))
    for name, value in alone.backbone.state_dict().items():
        assert torch.equal(value, model.backbone.state_dict()[name])


def test_weights_of_lrhead_are_checked_too():
    head = lr_head()
    del head['decode_head.squeeze2.bn.bias']
    head['decode_head.fuse_block1.norm1.weight'] = torch.zeros(3)
    result = conversion.convert(segmentor('lrformer_t', head), lrformer.FAMILY)
    assert result.missing == ['decode_head.squeeze2.bn.bias']
    assert result.reshaped == {'decode_head.fuse_block1.norm1.weight': ((3,), (256,))}


def test_other_heads_keep_their_names():
    names = ('decode_head.psp_modules.0.1.conv.weight', 'auxiliary_head.convs.0.bn.bias')
    for name, heads in (('lrformer_t', names), ('lemevit_tiny', names[1:])):
        state = renamed(segmentor(name, dict.fromkeys(heads, torch.ones(2))), 'module.')
        result = conversion.convert(state, family_of(name))
        assert {ours: result.used[ours] for ours in heads} == {ours: f'module.{ours}' for ours in heads}
        assert {ours.partition('.')[0] for ours in result.state} == {
            'backbone', *(head.partition('.')[0] for head in heads)
        }  # fmt: skip


def test_missing_weights_are_an_error_and_counters_are_not():
    state = published_state('lemevit_tiny', 'meta')
    for name in ('stages.0.0.norm1.weight', 'stages.3.7.mlp.0.bias', 'downsample_layers.0.1.num_batches_tracked'):
        del state[name]
    result = conversion.convert(state, lemevit.FAMILY)
    assert result.arch == 'tiny'
    assert result.missing == ['stages.0.0.norm1.weight', 'stages.3.7.mlp.0.bias']
    with pytest.raises(
        CheckpointError, match=r'^x: 2 missing: stages\.0\.0\.norm1\.weight, stages\.3\.7\.mlp\.0\.bias$'
    ):
        result.check('x')


def test_other_shapes_are_an_error_that_names_the_first_five():
    state = published_state('lrformer_t', 'meta')
    for block in range(6):
        state[f'block3.{block}.norm1.bias'] = torch.zeros(2, block)
    result = conversion.convert(state, lrformer.FAMILY)
    with pytest.raises(CheckpointError) as info:
        result.check('x')
    shapes = '; '.join(f'stages.2.{block}.norm1.bias: found (2, {block}), expected (240,)' for block in range(5))
    assert str(info.value) == f'x: 6 of another shape: {shapes} and 1 more'


def test_unknown_sizes_are_named_with_the_known_ones():
    state = published_state('lrformer_t', 'meta')
    wide = {name: value.new_empty([3 * side for side in value.shape]) for name, value in state.items()}
    with pytest.raises(CheckpointError, match=r'x\.pth: the shapes are of no size of LRFormer; .* t, s, b, l, xl'):
        conversion.convert(wide, lrformer.FAMILY, 'x.pth')
    with pytest.raises(ConfigError, match=r'--arch huge: expected one of t, s, b, l, xl'):
        conversion.convert(state, lrformer.FAMILY, arch='huge')
    with pytest.raises(CheckpointError, match=r'x\.pth: no weights of LeMeViT; found names such as patch_embed1'):
        conversion.convert(state, lemevit.FAMILY, 'x.pth')
    # A given size that the weights do not have is named by their shapes.
    first = r'downsamples\.0\.0\.weight: found \(24, 3, 3, 3\), expected \(32, 3, 3,'
    with pytest.raises(CheckpointError, match=first):
        conversion.convert(state, lrformer.FAMILY, arch='S').check('x')


def test_two_names_of_one_weight_are_an_error():
    state = published_state('lemevit_tiny', 'meta')
    with pytest.raises(CheckpointError, match=r"'meta_tokens' and 'module\.meta_tokens' are the same weight"):
        conversion.convert({**state, 'module.meta_tokens': state['meta_tokens']}, lemevit.FAMILY)


@pytest.mark.parametrize(
    'content, message',
    [
        (b'weights', 'damaged or not a checkpoint'),
        ([1, 2], 'holds a list'),
        ({'epoch': 1}, 'no weights; .* found the entries epoch'),
    ],
)
def test_files_without_weights_are_an_error_and_nothing_is_written(tmp_path, content, message):
    path, out = tmp_path / 'x.pth', tmp_path / 'out.pth'
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(CheckpointError, match=rf'x\.pth: {message}'):
        convert_file(lemevit.FAMILY, path, out)
    assert not out.exists()


def test_incomplete_files_write_nothing(tmp_path):
    state = published_state('lemevit_tiny')
    del state['stages.4.0.attn.qkv.bias']
    torch.save(state, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=r'x\.pth: does not match LeMeViT tiny: 1 missing: stages\.4\.0'):
        convert_file(lemevit.FAMILY, tmp_path / 'x.pth', tmp_path / 'out.pth', '--report', tmp_path / 'report.json')
    with pytest.raises(ConfigError, match='is the input'):
        convert_file(lemevit.FAMILY, tmp_path / 'x.pth', tmp_path / 'x.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['x.pth']


def test_code_in_a_file_is_refused(tmp_path):
    class Bait:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path / "executed"}',)

    torch.save({'model': {'a': torch.zeros(1)}, 'args': Bait()}, tmp_path / 'evil.pth')
    with pytest.raises(CheckpointError, match=r'evil\.pth: refused.*--trust-checkpoint'):
        convert_file(lemevit.FAMILY, tmp_path / 'evil.pth', tmp_path / 'out.pth')
    assert not (tmp_path / 'executed').exists()


def test_the_tool_writes_weights_that_init_cfg_loads_and_a_report(tmp_path):
    state = published_state('lemevit_tiny')
    official, out, report = tmp_path / 'official.pth', tmp_path / 'made' / 'out.pth', tmp_path / 'report.json'
    averaged = {**state, 'head.weight': torch.zeros(2, 2)}
    torch.save({'model': {'meta_tokens': torch.zeros(1)}, 'model_ema': averaged, 'epoch': 3}, official)
    done = run_tool('python', 'tools/model_converters/lemevit.py', official, out, '--report', report)
    lines = done.stdout.splitlines()
    title = lines.index(f'{official} (model_ema): LeMeViT tiny')
    assert lines[title + 1] == 'not used: model'
    assert '  stages.0.0.attn.q.weight <- stages.0.0.attn.q.weight' in lines
    assert '  norm_c.weight: feeds no feature map' in lines
    assert '  head.weight: classifier' in lines
    assert 'missing: 0' in lines
    content = json.loads(report.read_text())
    assert (content['backbone'], content['arch']) == ('LeMeViT', 'tiny')
    assert (content['entry'], content['passed_over']) == ('model_ema', ['model'])
    assert f'used: {len(content["used"])} (ours <- theirs)' in lines
    assert len(content['used']) + len(content['unused']) == len(state) + 1
    assert content['missing'] == []
    # The line of advice is what loads it.
    start = lines[-1].index('dict(')
    init_cfg = eval(lines[-1][start : lines[-1].rindex(')') + 1])
    parts = torch.nn.ModuleDict(dict(backbone=MODELS.build(dict(type='LeMeViT', arch='tiny', init_cfg=init_cfg))))
    load_pretrained_parts(take_pretrained_parts(parts))
    for name, value in parts.backbone.state_dict().items():
        assert torch.equal(value, state[name])
