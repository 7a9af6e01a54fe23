"""Tiles and protocols of Inria."""

import re

import numpy as np
import pytest

from lale_mmseg.errors import ConfigError
from lale_mmseg.metainfo import inria
from lale_mmseg.metainfo.protocols import PROTOCOLS, find_protocol

FULL, FEW = (protocol.split('inria') for protocol in inria.PROTOCOLS)


def test_there_are_36_tiles_of_each_of_five_cities():
    assert len(set(inria.TILES)) == 180
    assert inria.TILES[:2] + inria.TILES[-1:] == ('austin1', 'austin2', 'vienna36')
    assert len(set(inria.HIDDEN_TILES)) == 180
    assert not set(inria.CITIES) & set(inria.HIDDEN_CITIES)


def test_full_protocol():
    assert (len(FULL.train), len(FULL.val), FULL.test) == (155, 25, ())
    assert set(FULL.val) == {f'{city}{number}' for city in inria.CITIES for number in range(1, 6)}
    assert set(FULL.train) == set(inria.TILES) - set(FULL.val)


def test_few_shot_protocol():
    numbers = [2, 3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 15, 17, 18, 19, 20, 22, 23, 24, 25, 27, 28, 29, 30]
    assert FEW.train == tuple(f'austin{number}' for number in numbers)
    assert FEW.val == ('austin1', 'austin6', 'austin11', 'austin16', 'austin21', 'austin26')
    assert FEW.test == ('austin31', 'austin32', 'austin33', 'austin34', 'austin35', 'austin36')
    assert set(FEW.train + FEW.val + FEW.test) == set(inria.tiles_of('austin'))
    assert len(FEW.train + FEW.val + FEW.test) == 36


@pytest.mark.parametrize(('name', 'letter'), [('full', 'E'), ('few-shot', 'F')])
def test_protocols_are_found_by_name_and_letter(name, letter):
    protocol = find_protocol(name)
    assert protocol is find_protocol(letter)
    assert (protocol.classes, protocol.averaged) == (('background', 'building'), ('building',))
    assert not protocol.selects_on_test('inria')
    assert protocol.split('inria', clean=True) == protocol.split('inria')
    with pytest.raises(ConfigError, match="has no tiles of 'potsdam'; it is defined for inria"):
        protocol.split('potsdam')


def test_letters_are_in_order():
    assert ''.join(protocol.letter for protocol in PROTOCOLS.values()) == 'ABCDEF'


@pytest.mark.parametrize(
    ('stem', 'tile', 'city'),
    [
        ('austin1', 'austin1', 'austin'),
        ('austin12', 'austin12', 'austin'),
        ('austin12_0_512_512_1024', 'austin12', 'austin'),
        ('tyrol-w36_4488_0_5000_512', 'tyrol-w36', 'tyrol-w'),
        ('sfo7', 'sfo7', 'sfo'),
        ('austin37', None, None),
        ('austin0', None, None),
        ('austin120', None, None),
        ('austin12b', None, None),
        ('tyrol1', None, None),
        ('austin', None, None),
        ('north-austin1', None, None),
    ],
)
def test_tile_of_a_name(stem, tile, city):
    assert inria.tile_of(stem) == tile
    match = re.match(inria.TILE_PATTERN, stem)
    assert ((None, None) if match is None else (match['tile'], match['city'])) == (tile, city)
    if tile is not None:
        assert re.fullmatch(inria.TILE_PATTERN, stem)['tile'] == tile
        assert inria.city_of(tile) == city


@pytest.mark.parametrize('name', ['austin12_0_0_512_512', 'paris1'])
def test_only_tiles_have_a_city(name):
    with pytest.raises(KeyError):
        inria.city_of(name)


def test_the_background_does_not_darken_an_overlay():
    assert np.mean(inria.COLORS[0]) >= 128
