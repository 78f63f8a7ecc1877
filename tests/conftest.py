"""Fixtures that every kind of test shares."""

import pytest

# So that a failed check of a sample shows what differs.
pytest.register_assert_rewrite("language_sample")
