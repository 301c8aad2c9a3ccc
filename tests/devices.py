"""The one switch for tests that need a GPU."""

import os

import pytest


def require_cuda(reason):
    """Skip for want of a GPU, or fail where TRTSEG_REQUIRE_CUDA=1 says that there is one."""
    if os.environ.get("TRTSEG_REQUIRE_CUDA") == "1":
        pytest.fail(f"TRTSEG_REQUIRE_CUDA=1, but {reason}")
    pytest.skip(reason)
