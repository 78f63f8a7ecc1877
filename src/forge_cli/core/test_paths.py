"""Which files of a repository are its tests, by their paths."""

from __future__ import annotations

import re

_TEST = re.compile(r"(^|/)(tests?|__tests__)/|(^|/)test_[^/]*$|_test\.[^/]*$|\.(test|spec)\.[^/]*$")


def is_test_path(path: str) -> bool:
    """Whether a path, with /, is a test's by the customs of the common languages."""
    return _TEST.search(path) is not None
