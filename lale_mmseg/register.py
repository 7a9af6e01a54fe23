"""The one import that makes a config see this package: `custom_imports = dict(imports=['lale_mmseg.register'])`.

Checks versions, adapts the framework, then imports every room so that its parts are registered.
"""

from . import compat

compat.apply()

from . import datasets, engine, evaluation, inference, models  # noqa: E402

__all__ = ['compat', 'datasets', 'engine', 'evaluation', 'inference', 'models']
