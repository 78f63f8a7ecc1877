"""Mining SQL."""

from __future__ import annotations

from pathlib import Path

from language_sample import finds, mined, survives_damage

SAMPLE = """\
-- Who buys.
-- One row each.
CREATE TABLE IF NOT EXISTS shop."people" (
  id INT PRIMARY KEY, -- the id
  name VARCHAR(20) NOT NULL
);

/* Who buys now. */
CREATE OR REPLACE VIEW active AS
SELECT p.id, count(*) FROM people p JOIN orders o ON o.pid = p.id WHERE lower(name) = 'a';

-- Doubles it.
CREATE FUNCTION double_it(a INT, b INT) RETURNS INT AS $$
BEGIN
  RETURN a * 2;
END;
$$ LANGUAGE plpgsql;

CREATE INDEX people_name ON people (name);

-- Fires.
CREATE TRIGGER fires BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION double_it();

-- How one feels.
CREATE TYPE mood AS ENUM ('sad', 'ok');

-- Sums.
CREATE MATERIALIZED VIEW sums AS SELECT round(1);

INSERT INTO people VALUES (1, 'x');
"""


def test_symbols_with_their_comments(tmp_path: Path) -> None:
    found = finds(
        tmp_path,
        "shop.sql",
        SAMPLE,
        180,
        {
            "shop.people": (
                "class",
                'CREATE TABLE IF NOT EXISTS shop."people"',
                "Who buys.\nOne row each.",
                "-- Who",
            ),
            "active": ("class", "CREATE OR REPLACE VIEW active", "Who buys now.", "/* Who"),
            "double_it": (
                "function",
                "CREATE FUNCTION double_it(a INT, b INT) RETURNS INT",
                "Doubles it.",
                "-- Doubles",
            ),
            "fires": (
                "function",
                "CREATE TRIGGER fires BEFORE INSERT ON people FOR EACH ROW "
                "EXECUTE FUNCTION double_it()",
                "Fires.",
                "-- Fires",
            ),
            "mood": (
                "type",
                "CREATE TYPE mood AS ENUM ('sad', 'ok')",
                "How one feels.",
                "-- How",
            ),
            "sums": ("class", "CREATE MATERIALIZED VIEW sums", "Sums.", "-- Sums"),
        },
    )
    assert found["active"].calls == ["count", "lower"]
    assert found["shop.people"].text.endswith(");\n\n")
    assert "people_name" in found[""].text  # an index is no symbol, and not lost


def test_a_dialect_that_the_grammar_does_not_know_loses_nothing(tmp_path: Path) -> None:
    text = (
        "CREATE PROCEDURE [dbo].[p] @a INT AS BEGIN EXEC q @a END\nGO\n\n"
        "-- A table.\nCREATE TABLE t (id INT);\n"
    )
    found = mined(tmp_path, "a.sql", text, 60)
    assert found["t"].docstring == "A table."


def test_damage() -> None:
    survives_damage("sql", SAMPLE)
