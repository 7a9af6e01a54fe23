"""What a resumed run takes from its checkpoint: the seed of its draws, and all weights."""

import pytest
from mmengine.dataset import DefaultSampler
from mmseg.registry import DATA_SAMPLERS, RUNNERS

from tests.test_engine.tiny_run import TinyBackbone, tiny_config


@DATA_SAMPLERS.register_module(force=True)
class SeenSeeds(DefaultSampler):
    """Notes the seed with which each epoch is drawn."""

    seen: list[tuple[int, int]] = []

    def __iter__(self):
        SeenSeeds.seen.append((self.epoch, self.seed))
        return super().__iter__()


@pytest.fixture(autouse=True)
def nothing_seen():
    SeenSeeds.seen.clear()


def run(work_dir, seed, epochs, resume=False, sampler=None):
    cfg = tiny_config(work_dir, epochs=epochs)
    cfg.train_dataloader.sampler = dict(type='SeenSeeds', shuffle=True, **(sampler or {}))
    cfg.randomness = dict(seed=seed)
    cfg.resume = resume
    RUNNERS.build(cfg).train()


def test_draws_go_on_with_the_seed_of_the_checkpoint(tmp_path):
    run(tmp_path, 5, 1)
    run(tmp_path, 6, 2, resume='auto')
    assert SeenSeeds.seen == [(0, 5), (1, 5)]


def test_a_sampler_with_a_seed_of_its_own_keeps_it(tmp_path):
    run(tmp_path, 5, 1, sampler=dict(seed=11))
    run(tmp_path, 6, 2, resume='auto', sampler=dict(seed=11))
    assert SeenSeeds.seen == [(0, 11), (1, 11)]


@pytest.mark.parametrize('named', [True, False], ids=['by its path', 'the newest'])
def test_published_weights_are_read_once(tmp_path, monkeypatch, named):
    """A part that takes published weights is asked for them at the start, not when a checkpoint has its weights."""
    asked = []

    def init_weights(self):
        asked.append(self.pretrained_weights)

    monkeypatch.setattr(TinyBackbone, 'pretrained_weights', 'published.pth', raising=False)
    monkeypatch.setattr(TinyBackbone, 'init_weights', init_weights, raising=False)
    run(tmp_path, 5, 1)
    cfg = tiny_config(tmp_path, epochs=2)
    cfg.resume = True if named else 'auto'
    cfg.load_from = str(tmp_path / 'epoch_1.pth') if named else None
    RUNNERS.build(cfg).train()
    # Nothing to resume: the run starts from published weights after all.
    cfg = tiny_config(tmp_path / 'new', epochs=1)
    cfg.resume = 'auto'
    RUNNERS.build(cfg).train()
    assert asked == ['published.pth', None, 'published.pth']
