"""Shared by all tests: property-based tests that are reproducible and may be slow."""

import os

import hypothesis
import pytest

hypothesis.settings.register_profile("repository", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repository")

# Programs that tests start import the package under test, as the tests themselves do, and not the
# folder `trtseg` of a repository they happen to be started in, which has no native modules.
os.environ["PYTHONSAFEPATH"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a slow test come first: the last ones to begin decide when all have ended."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
