"""The report's pictures: what is drawn, and that they are the page's own."""

from __future__ import annotations

import re

from forge_cli.evaluate.pairing import Pair
from forge_cli.evaluate.report.figures import forest, loss_curves
from forge_cli.evaluate.statistics import compare

FILES = [f"f{n}.py" for n in range(12)]


def pair(condition: str, metric: str, gain: float) -> Pair:
    base = [0.1 + n / 50 for n in range(12)]
    tuned = [value + gain + (n % 3) / 50 for n, value in enumerate(base)]
    lower = metric.endswith("loss")
    found = compare(base, tuned, FILES, lower_is_better=lower, resamples=500, seed=0)
    return Pair(condition, metric, "base", "tuned", found)


def test_scores_are_drawn_under_their_condition_and_losses_are_not() -> None:
    pairs = [
        pair("given", "answer_loss", -0.2), pair("given", "answer_f1", 0.3),
        pair("reworded", "answer_f1", -0.05),
    ]  # fmt: skip
    picture = forest(pairs, 'from "base" to tuned')
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", picture)
    assert [text for text in texts if re.match("[a-z]", text)] == [
        "worse   ←   difference   →   better",
        "documents as given", "answer f1", "a wording never trained on", "answer f1",
    ]  # fmt: skip
    assert 'aria-label="from &quot;base&quot; to tuned"' in picture
    # One better, one worse, in the page's colours for them.
    assert picture.count("stroke: var(--good)") and picture.count("stroke: var(--bad)")
    assert picture == forest(pairs, 'from "base" to tuned')


def test_a_picture_brings_no_colour_font_or_address_of_its_own() -> None:
    pictures = [
        forest([pair("given", "answer_f1", 0.3)], "one"),
        loss_curves([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "valid_loss": 1.5}]),
    ]
    for picture in pictures:
        assert not re.search(r"#[0-9a-f]{6}\b|font-family|http", picture)
    names = [set(re.findall(r' id="([^"]*)"', picture)) for picture in pictures]
    assert not names[0] & names[1], "they stand on one page"


def test_without_numbers_there_is_no_picture() -> None:
    assert forest([pair("given", "answer_loss", -0.2)], "losses alone") == ""
    assert loss_curves([{"step": 0, "valid_loss": 2.0}]) == ""
