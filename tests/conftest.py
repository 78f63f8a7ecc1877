"""Fixtures that every kind of test shares."""

import os

import pytest

# Tiny models gain nothing from a second thread, and where other work holds the cores the threads
# of a BLAS wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# So that a failed check of a sample shows what differs.
pytest.register_assert_rewrite("language_sample", "sandboxed")
