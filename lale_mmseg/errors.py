"""Errors about user input. Each message names the file or field, the bad value and what was expected.

The command line tools print these as one line and exit with status 2; any other exception is a bug and keeps its
traceback. They are subclasses of `ValueError`. This module imports nothing.
"""


class InputError(ValueError):
    """Something that the user supplied (data, config, checkpoint, command line) cannot be used."""


class DataError(InputError):
    """Images, masks, class tables or splits cannot be used as they are."""


class ConfigError(InputError):
    """A config field or command line option is misspelt, missing or contradicts another."""


class CheckpointError(InputError):
    """A checkpoint cannot be read, is not trusted, or does not fit the model."""
