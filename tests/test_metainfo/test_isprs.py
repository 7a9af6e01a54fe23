"""Tiles and protocols of Potsdam and Vaihingen."""

import pytest

from lale_mmseg.errors import ConfigError
from lale_mmseg.metainfo import isprs
from lale_mmseg.metainfo.protocols import find_protocol

STATED = [(protocol, dataset) for protocol in isprs.PROTOCOLS for dataset in protocol.splits]


def test_there_are_38_and_33_tiles():
    assert {dataset: len(set(tiles)) for dataset, tiles in isprs.TILES.items()} == {'potsdam': 38, 'vaihingen': 33}


@pytest.mark.parametrize(
    ('letter', 'dataset', 'sizes'),
    [
        ('A', 'potsdam', (22, 1, 14)),
        ('A', 'vaihingen', (15, 1, 17)),
        ('B', 'potsdam', (24, 14, 14)),
        ('B', 'vaihingen', (16, 17, 17)),
        ('C', 'potsdam', (24, 14, 14)),
        ('C', 'vaihingen', (16, 17, 17)),
        ('D', 'vaihingen', (28, 5, 5)),
    ],
)
def test_sizes_of_the_published_splits(letter, dataset, sizes):
    split = find_protocol(letter).split(dataset)
    assert tuple(len(getattr(split, name)) for name in ('train', 'val', 'test')) == sizes


@pytest.mark.parametrize(('protocol', 'dataset'), STATED, ids=lambda value: getattr(value, 'letter', value))
@pytest.mark.parametrize('clean', [False, True], ids=['published', 'clean'])
def test_training_shares_no_tile_with_evaluation(protocol, dataset, clean):
    split = protocol.split(dataset, clean)
    assert set(split.train + split.val + split.test) <= set(isprs.TILES[dataset])
    assert not set(split.train) & set(split.val + split.test)
    assert bool(set(split.val) & set(split.test)) == (protocol.selects_on_test(dataset) and not clean)
    assert split.test == protocol.split(dataset).test
    # Nothing but the validation tile leaves the training set.
    assert set(protocol.split(dataset).train) - set(split.train) == (
        set(split.val) if protocol.selects_on_test(dataset) and clean else set()
    )


def test_protocol_a_leaves_out_the_tile_with_label_errors():
    split = find_protocol('geoseg').split('potsdam')
    assert '7_10' not in split.train + split.val + split.test
    assert '7_10' in find_protocol('mmseg').split('potsdam').train


def test_an_unknown_protocol_is_an_error_that_lists_the_known():
    with pytest.raises(ConfigError, match=r"'Z' is not known; known: A 'geoseg'.*B 'mmseg'.*C 'rsp'.*D 'boundary'"):
        find_protocol('Z')
    assert find_protocol('A') is find_protocol('geoseg')


def test_a_protocol_without_tiles_of_a_city_is_an_error():
    with pytest.raises(ConfigError, match=r"'boundary' \(D\) has no tiles of 'potsdam'; it is defined for vaihingen"):
        find_protocol('D').split('potsdam')


@pytest.mark.parametrize(
    ('dataset', 'stem', 'tile'),
    [
        ('potsdam', '2_10_0_0_512_512', '2_10'),
        ('potsdam', '2_10', '2_10'),
        ('potsdam', '2_1_0_0_512_512', None),
        ('potsdam', '2_101', None),
        ('vaihingen', 'area1_0_0_512_512', '1'),
        ('vaihingen', 'area11', '11'),
        ('vaihingen', 'area9', None),
        ('vaihingen', '1_0_0_512_512', None),
    ],
)
def test_tile_of_a_name(dataset, stem, tile):
    assert isprs.tile_of(dataset, stem) == tile
    if tile is not None:
        assert stem.startswith(isprs.tile_stem(dataset, tile))
