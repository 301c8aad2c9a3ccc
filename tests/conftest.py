"""Shared by all tests: property-based tests that are reproducible and may be slow."""

import os

import hypothesis

hypothesis.settings.register_profile("repository", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repository")

# Programs that tests start import the package under test, as the tests themselves do, and not the
# folder `trtseg` of a repository they happen to be started in, which has no native modules.
os.environ["PYTHONSAFEPATH"] = "1"
