"""Errors about what the user gave: each message names the file or field, the bad value and what would be right.

The command line tools print these as one line and exit with status 2; any other exception is a bug and keeps its
traceback. They are `ValueError`s, so library users catch them as such. This module imports nothing.
"""


class InputError(ValueError):
    """Something that the user gave (data, config, checkpoint, command line) cannot be used."""


class DataError(InputError):
    """Images, masks, class tables or splits that cannot be used as they are."""


class ConfigError(InputError):
    """A config field or command line option that is misspelt, missing or contradicts another."""


class CheckpointError(InputError):
    """A checkpoint that cannot be read, is not trusted, or does not fit the model."""
