"""Training and evaluation share no scene, and class weights come from the training set."""

import json

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from lale_mmseg.engine.class_weights import frequency_weights
from lale_mmseg.engine.config import complete_config
from lale_mmseg.engine.splits import check_scoring, check_splits
from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.metainfo.protocols import find_protocol


def config(root, **phases):
    init_default_scope('mmseg')
    cfg = dict(model=dict(decode_head=dict(loss_decode=[dict(type='A', class_weight='data'), dict(type='B')])))
    for phase in ('train', 'val', 'test'):
        dataset = dict(type='ISPRSProtocolDataset', data_root=str(root), benchmark='vaihingen', protocol='mmseg')
        cfg[f'{phase}_dataloader'] = dict(dataset=dataset | dict(split=phase) | phases.get(phase, {}))
    return Config(cfg)


def warnings_of(monkeypatch, cfg):
    messages = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', messages.append)
    check_splits(cfg)
    return messages


def test_a_protocol_never_trains_on_its_test_tiles(tmp_path, monkeypatch):
    assert warnings_of(monkeypatch, config(tmp_path)) == []


@pytest.mark.parametrize(
    ('phases', 'message'),
    [
        # Protocol D trains on every tile that B tests on.
        (dict(train=dict(protocol='boundary')), 'train_dataloader and val_dataloader share 17 tiles: vaihingen/10'),
        (
            dict(train=dict(protocol='boundary', split='val'), val=dict(protocol='geoseg')),
            'train_dataloader and val_dataloader share 1 tiles: vaihingen/30;',
        ),
        (dict(val=dict(clean=True)), 'train_dataloader and val_dataloader share 1 tiles: vaihingen/30;'),
        (dict(test=dict(split='train')), 'train_dataloader and test_dataloader share 16 tiles'),
    ],
)
def test_shared_tiles_are_an_error(tmp_path, phases, message):
    with pytest.raises(ConfigError, match=message):
        check_splits(config(tmp_path, **phases))


def test_a_choice_on_test_tiles_is_reported(tmp_path, monkeypatch):
    cfg = config(tmp_path)
    cfg.default_hooks = dict(checkpoint=dict(save_best='mF1'))
    (message,) = warnings_of(monkeypatch, cfg)
    assert 'selected by mF1 on 17 tiles that are also tested' in message
    clean = {phase: dict(clean=True) for phase in ('train', 'val', 'test')}
    cfg = config(tmp_path, **clean)
    cfg.default_hooks = dict(checkpoint=dict(save_best='mF1'))
    assert warnings_of(monkeypatch, cfg) == []


def test_weights_are_one_plus_the_rest_of_the_frequency():
    """Frequencies 0.75, 0.25 and none: 1 + 0.25, 1 + 0.75, and 1."""
    assert frequency_weights(np.array([75, 25, 0])) == [1.25, 1.75, 1.0]
    with pytest.raises(DataError, match='no labelled pixel'):
        frequency_weights([0, 0])


def test_weights_are_filled_in_from_the_training_tiles(tmp_path):
    cfg = config(tmp_path)
    assert 'statistics.json' in complete_config(cfg).untrainable
    tiles = {tile: dict(eroded=[6, 1, 1, 1, 1, 0]) for tile in find_protocol('mmseg').split('vaihingen').train}
    (tmp_path / 'statistics.json').write_text(json.dumps(dict(tiles=tiles)))
    losses = complete_config(cfg).model.decode_head.loss_decode
    assert losses[0].class_weight == [1.4, 1.9, 1.9, 1.9, 1.9, 1.0]
    assert 'class_weight' not in losses[1]


def scored(root, phase='test', **evaluator):
    cfg = config(root)
    cfg[f'{phase}_evaluator'] = dict(type='SegmentationMetric', **evaluator)
    return cfg


def test_data_are_scored_under_the_protocol_that_they_are_read_under(tmp_path):
    check_scoring(scored(tmp_path, protocol='mmseg'), ('test',))
    check_scoring(scored(tmp_path, protocol='B'), ('test',))
    check_scoring(scored(tmp_path), ('test',))
    message = r"test_dataloader.dataset is read under protocol 'mmseg' but scored under 'boundary'"
    with pytest.raises(ConfigError, match=message):
        check_scoring(scored(tmp_path, protocol='D'), ('test',))
    cfg = scored(tmp_path)
    cfg.test_evaluator = [dict(type='IoUMetric'), dict(type='SegmentationMetric', protocol='A')]
    with pytest.raises(ConfigError, match="is read under protocol 'mmseg' but scored under 'geoseg'"):
        check_scoring(cfg, ('val', 'test'))


def test_training_labels_are_not_scored_as_test_labels(tmp_path):
    cfg = scored(tmp_path, protocol='A')
    cfg.test_dataloader.dataset.update(protocol='A', split='train')
    with pytest.raises(
        ConfigError, match=r"has full labels \(split 'train'\), but protocol 'geoseg' \(A\) scores eroded"
    ):
        check_scoring(cfg, ('test',))


def test_a_run_needs_no_data_of_other_phases(tmp_path):
    """mmsegmentation's PotsdamDataset looks for its folder when it is built; ours for its data root."""
    cfg = scored(tmp_path, protocol='B')
    cfg.train_dataloader.dataset.data_root = str(tmp_path / 'none')
    check_scoring(cfg, ('test',))
    cfg.train_dataloader.dataset = dict(type='PotsdamDataset', data_root=str(tmp_path / 'none'))
    check_scoring(cfg, ('test',))
    check_splits(cfg)


def test_where_the_test_labels_are_hidden_no_clean_split_is_promised(tmp_path, monkeypatch):
    loaders = {
        f'{phase}_dataloader': dict(
            dataset=dict(type='InriaDataset', protocol='full', split=split, data_root=str(tmp_path))
        )
        for phase, split in (('train', 'train'), ('val', 'val'), ('test', 'val'))
    }
    hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='mF1'))
    (message,) = warnings_of(monkeypatch, Config(dict(default_hooks=hooks, **loaders)))
    assert 'selected by mF1 on 25 tiles that are also tested' in message
    assert 'clean' not in message
