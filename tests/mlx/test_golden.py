"""Training comes to the losses that are on file, step by step."""

from __future__ import annotations

import json

import pytest

from golden.make_losses import CASES, FILE, STEPS, Case, by_forge

KNOWN = json.loads(FILE.read_text())


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_losses_are_those_on_file(case: Case) -> None:
    # Another BLAS rounds otherwise, and a weight near the border of two codes takes the other.
    near = 1e-4 if case.bits == 16 else 3e-3
    losses = by_forge(case)
    assert losses == pytest.approx(KNOWN[case.name]["forge"], rel=near)
    assert abs(losses[-1] - losses[0]) > 30 * near * losses[0], "it moves, so that this can fail"


def test_the_file_was_made_by_two_means() -> None:
    assert set(KNOWN) == {case.name for case in CASES}
    for case in CASES:
        lists = KNOWN[case.name]
        assert ("plain" in lists) is case.has_plain and len(lists["forge"]) == STEPS
        if case.has_plain:
            assert lists["plain"] == pytest.approx(lists["forge"], rel=1e-4)
