"""Tests; a package, so that its modules may have equal names in different rooms."""
