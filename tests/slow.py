"""Marks tests that take minutes, with many starts of workers: `make test-slow` runs them, `make test` does not."""

import os

import pytest

slow = pytest.mark.skipif("T2L_SLOW" not in os.environ, reason="takes minutes: make test-slow")
