import os
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from torch import nn

from lale_mmseg.engine.checkpoint import (
    DESCRIPTION_KEY,
    describe,
    description_of,
    load_weights,
    newest_checkpoint,
    read_checkpoint,
    rename_weights,
    restore_histories,
    to_plain,
)
from lale_mmseg.errors import CheckpointError


class Malicious:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path):
    bait = tmp_path / 'executed'
    path = tmp_path / 'evil.pth'
    torch.save({'state_dict': {}, 'extra': Malicious(bait)}, path)
    with pytest.raises(CheckpointError, match=r'evil\.pth: refused.*--trust-checkpoint'):
        read_checkpoint(path)
    assert not bait.exists()
    read_checkpoint(path, trust=True)  # what the flag is for
    assert bait.exists()


def test_getattr_in_a_checkpoint_reaches_history_buffers_only(tmp_path):
    class Reach:
        def __reduce__(self):
            return getattr, (nn.Linear, 'forward')

    torch.save({'state_dict': {}, 'meta': Reach()}, tmp_path / 'reach.pth')
    with pytest.raises(CheckpointError, match=r'reach\.pth'):
        read_checkpoint(tmp_path / 'reach.pth')


def test_ordinary_checkpoints_of_mmengine_can_be_read(tmp_path):
    history = HistoryBuffer()
    history.update(1.5)
    content = dict(
        state_dict=OrderedDict(weight=torch.ones(2)),
        meta=dict(epoch=1, iter=3, cfg='a = 1', config='raise SystemExit', numbers=np.arange(3), one=np.float64(0.5)),
        message_hub=dict(log_scalars=OrderedDict(loss=history), runtime_info={}, resumed_keys={}),
    )
    torch.save(content, tmp_path / 'iter_3.pth')
    checkpoint = read_checkpoint(tmp_path / 'iter_3.pth')
    assert checkpoint['message_hub']['log_scalars']['loss'].current() == 1.5
    assert 'config' not in checkpoint['meta']  # mmengine would execute it when it resumes


def test_a_bare_state_dict_is_accepted(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / 'bare.pth')
    assert set(read_checkpoint(tmp_path / 'bare.pth')['state_dict']) == {'weight', 'bias'}


@pytest.mark.parametrize('keep', [0, 10, 200])
def test_damaged_files_are_named(tmp_path, keep):
    torch.save({'state_dict': {'w': torch.zeros(1000)}}, tmp_path / 'whole.pth')
    (tmp_path / 'cut.pth').write_bytes((tmp_path / 'whole.pth').read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r'cut\.pth: damaged or not a checkpoint'):
        read_checkpoint(tmp_path / 'cut.pth')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([1, 2], 'holds a list, expected a dict'),
        ({'optimizer': 1, 'epoch': 2}, 'no state_dict; its entries are optimizer, epoch'),
        (None, 'no such checkpoint'),
    ],
)
def test_other_files_are_named(tmp_path, content, message):
    if content:
        torch.save(content, tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match=rf'other\.pth: {message}'):
        read_checkpoint(tmp_path / 'other.pth')


def test_a_web_page_is_damaged_and_not_a_matter_of_trust(tmp_path):
    (tmp_path / 'page.pth').write_text('<!DOCTYPE html>')
    with pytest.raises(CheckpointError, match=r'page\.pth: damaged or not a checkpoint'):
        read_checkpoint(tmp_path / 'page.pth')


def test_plain_data_survives_weights_only_and_histories_come_back(tmp_path):
    history = HistoryBuffer()
    for value in (1.0, 2.0, 4.0):
        history.update(value, 2)
    content = dict(
        message_hub=dict(
            log_scalars=OrderedDict(loss=history), runtime_info=OrderedDict(lr=np.float32(0.5), best=np.float64(0.25))
        ),
        param_schedulers=[dict(anneal_func=len, last_step=3)],
        values=(np.arange(3), {'a': None, 'b': [1, 'x', b'y', True]}),
    )
    torch.save(to_plain(content), tmp_path / 'plain.pth')
    loaded = torch.load(tmp_path / 'plain.pth', weights_only=True)
    assert loaded['param_schedulers'] == [dict(last_step=3)]
    assert loaded['message_hub']['runtime_info']['lr'] == 0.5
    assert loaded['values'][1] == {'a': None, 'b': [1, 'x', b'y', True]}
    restore_histories(loaded['message_hub'])
    restored = loaded['message_hub']['log_scalars']['loss']
    assert (restored.mean(), restored.current()) == (history.mean(), 4.0)


def test_values_that_are_not_plain_are_named():
    with pytest.raises(TypeError, match=r'meta\.dataset\[1\] is a Generator'):
        to_plain({'dataset': [1, np.random.default_rng(0)]}, 'meta')


def test_description_holds_config_classes_and_colours():
    cfg = Config(dict(model=dict(type='EncoderDecoder'), sizes=(1, 2)))
    text = describe(cfg, dict(classes=('a', 'b'), palette=[[1, 2, 3], [4, 5, 6]]))
    description = description_of({DESCRIPTION_KEY: text}, 'x.pth')
    assert description.classes == ('a', 'b')
    assert description.palette == ((1, 2, 3), (4, 5, 6))
    assert description.config['model'] == {'type': 'EncoderDecoder'}


@pytest.mark.parametrize(
    ('checkpoint', 'message'),
    [({}, "no entry 'lale_mmseg'"), ({DESCRIPTION_KEY: '{"config": '}, 'its description is damaged')],
)
def test_missing_and_damaged_descriptions_are_named(checkpoint, message):
    with pytest.raises(CheckpointError, match=rf'x\.pth: {message}'):
        description_of(checkpoint, 'x.pth')


def test_weights_that_do_not_fit_are_listed():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    state = {'0.weight': torch.zeros(3, 5), '0.bias': torch.zeros(3), 'extra.weight': torch.zeros(1)}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as info:
        load_weights(model, state, 'other.pth')
    message = str(info.value)
    assert message.startswith('other.pth: does not fit this model (1 of 4 entries match): ')
    assert '2 not in the checkpoint: 1.weight, 1.bias' in message
    assert '1 not in the model: extra.weight' in message
    assert '1 of another shape: 0.weight (3, 5) instead of (3, 2)' in message
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_partial_loading_takes_what_fits_but_not_nothing():
    model = nn.Sequential(nn.Linear(2, 3))
    load_weights(model, {'0.bias': torch.full((3,), 7.0)}, 'x.pth', partial=True)
    assert model[0].bias.tolist() == [7, 7, 7]
    with pytest.raises(CheckpointError, match='0 of 2 entries match'):
        load_weights(model, {'other': torch.zeros(1)}, 'x.pth', partial=True)


def test_newest_readable_checkpoint_is_found_from_the_files(tmp_path):
    for number in (9, 20, 100):
        torch.save({'state_dict': {}, 'meta': dict(iter=number)}, tmp_path / f'iter_{number}.pth')
    torch.save({'state_dict': {}}, tmp_path / 'best_mF1_iter_200.pth')
    (tmp_path / 'last_checkpoint').write_text('/moved/away/iter_100.pth')
    assert newest_checkpoint(tmp_path) == (tmp_path / 'iter_100.pth', [])
    (tmp_path / 'iter_100.pth').write_bytes(b'')
    path, passed_over = newest_checkpoint(tmp_path)
    assert path == tmp_path / 'iter_20.pth'
    assert len(passed_over) == 1
    assert 'iter_100.pth' in passed_over[0]
    assert newest_checkpoint(tmp_path / 'empty') == (None, [])


def test_last_checkpoint_is_used_only_without_own_numbered_checkpoints(tmp_path):
    own, other = tmp_path / 'own', tmp_path / 'other'
    own.mkdir()
    other.mkdir()
    torch.save({'state_dict': {}}, own / 'epoch_20_ema.pth')
    torch.save({'state_dict': {}}, other / 'epoch_9.pth')
    (own / 'last_checkpoint').write_text(f'{other}/epoch_9.pth')
    assert newest_checkpoint(own) == (other / 'epoch_9.pth', [])
    torch.save({'state_dict': {}}, own / 'epoch_3.pth')  # a copied work dir: its own file, not that of its origin
    assert newest_checkpoint(own) == (own / 'epoch_3.pth', [])


def test_states_of_older_releases_without_batch_counters_load():
    model = nn.Sequential(nn.BatchNorm2d(3))
    state = {name: value + 1 for name, value in model.state_dict().items() if 'num_batches' not in name}
    load_weights(model, state, 'old.pth')
    assert model[0].running_mean.tolist() == [1, 1, 1]


def test_names_are_rewritten_by_rules_in_order():
    state = {'module.encoder.w': 1, 'head.w': 2}
    rules = [(r'^module\.', ''), (r'^encoder\.', 'backbone.')]
    assert dict(rename_weights(state, rules)) == {'backbone.w': 1, 'head.w': 2}
