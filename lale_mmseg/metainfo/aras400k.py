"""ARAS400k: classes, colours, source codes and published archives (arXiv 2603.09625)."""

CLASSES = ('tree', 'shrub', 'grass', 'crop', 'built-up', 'barren', 'water')

#: RGB of each class in the published masks, in class order.
COLORS = (
    (0, 100, 0),
    (255, 182, 193),
    (154, 205, 50),
    (255, 215, 0),
    (139, 69, 19),
    (211, 211, 211),
    (0, 0, 255),
)

#: RGB of "no data" in the published masks; it belongs to no class and is ignored.
NO_DATA_COLOR = (0, 0, 0)

#: ESA WorldCover 2021 codes of each class, in class order; code 0 is no data.
WORLDCOVER_CODES = ((10, 95), (20,), (30, 90, 100), (40,), (50,), (60, 70), (80,))

#: Side of every published image, in pixels (10 m ground sample distance).
TILE_SIZE = 256

#: MD5 sum of each published archive.
ARCHIVE_MD5 = {
    'train.zip': '95cd5caea68c813fd86888f9cd95b627',
    'val.zip': '76e61fd7557d65ba0596e44c0f92b43f',
    'test.zip': '01679231ee8e38701f5d3ab7de0b5719',
    'synth.zip': '0dc95bfdda44a816ade0d7ea747e4f9c',
}

#: Number of image and mask pairs of each published part.
PART_SIZES = {'train': 80192, 'val': 10024, 'test': 10024, 'synth': 300000}
