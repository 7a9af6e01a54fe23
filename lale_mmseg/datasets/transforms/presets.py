"""Named lists of albumentations transforms; each list extends the one before. docs/augmentation.md has a table.

Masks are resampled by nearest neighbour, so their values are never mixed; borders are filled by reflection. No preset
blurs, adds noise or changes the size of a square image. From 'medium' on, images must be 8-bit RGB.
"""

from __future__ import annotations

import cv2

#: Config of an albumentations transform: the class name as `type`, and its arguments.
Transform = dict[str, object]

LIGHT: tuple[Transform, ...] = (
    # The eight flips and rotations of a square, equally likely.
    dict(type='D4', p=1.0),
)

MEDIUM: tuple[Transform, ...] = (
    *LIGHT,
    dict(
        type='Affine',
        translate_percent=(-0.2, 0.2),
        scale=(0.7, 1.3),
        keep_ratio=True,
        rotate=(-0.4, 0.4),  # degrees, as albumentations reads the published value
        interpolation=cv2.INTER_LINEAR,
        mask_interpolation=cv2.INTER_NEAREST,
        border_mode=cv2.BORDER_REFLECT,
        p=0.7,
    ),
    dict(type='RandomBrightnessContrast', brightness_limit=(-0.2, 0.2), contrast_limit=(-0.3, 0.3), p=0.5),
    dict(
        type='HueSaturationValue',
        hue_shift_limit=(-10, 10),
        sat_shift_limit=(-15, 15),
        val_shift_limit=(-15, 15),
        p=0.3,
    ),
)

HEAVY: tuple[Transform, ...] = (
    *MEDIUM,
    # Shadows of buildings or trees nearby: polygons anywhere in the image, 20 to 40 % darker.
    dict(
        type='RandomShadow',
        shadow_roi=(0, 0, 1, 1),
        num_shadows_limit=(1, 2),
        shadow_dimension=4,
        shadow_intensity_range=(0.2, 0.4),
        p=0.3,
    ),
    dict(type='RandomGamma', gamma_limit=(80, 120), p=0.3),
    dict(type='CLAHE', clip_limit=(1, 2), tile_grid_size=(8, 8), p=0.2),
    dict(type='ImageCompression', compression_type='jpeg', quality_range=(75, 95), p=0.3),
)

EXTREME: tuple[Transform, ...] = (
    *HEAVY,
    # Displacements of about one pixel, rarely more than three, smooth over some twenty pixels: walls bend a little.
    dict(
        type='ElasticTransform',
        alpha=120.0,
        sigma=10.0,
        interpolation=cv2.INTER_LINEAR,
        mask_interpolation=cv2.INTER_NEAREST,
        border_mode=cv2.BORDER_REFLECT_101,
        p=0.3,
    ),
    # Grey rectangles. The labels below them stay, so that the network learns to infer a roof from its surroundings.
    dict(
        type='CoarseDropout',
        num_holes_range=(2, 6),
        hole_height_range=(0.03, 0.08),
        hole_width_range=(0.03, 0.08),
        fill=114,
        p=0.3,
    ),
    # Fog: smooth patches that are lighter and have less contrast (a rougher pattern would be noise). albumentations'
    # RandomFog blurs, more so in larger images.
    dict(
        type='PlasmaBrightnessContrast', brightness_range=(0.1, 0.2), contrast_range=(-0.5, -0.2), roughness=0.3, p=0.3
    ),
)

PRESETS: dict[str, tuple[Transform, ...]] = dict(light=LIGHT, medium=MEDIUM, heavy=HEAVY, extreme=EXTREME)
