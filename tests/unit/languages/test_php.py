"""Mining PHP."""

from __future__ import annotations

from pathlib import Path

from language_sample import finds, mined, survives_damage

SAMPLE = """\
<?php
declare(strict_types=1);

namespace Acme\\Store;

use Acme\\Util\\Clock;
use Acme\\{Base, Countable as Counts};
use function Acme\\helper;

/**
 * A cache that forgets.
 *
 * @template K
 */
#[Attribute(Attribute::TARGET_CLASS)]
final class Cache extends Base implements Counts
{
    use Loggable;
    private int $size = 1;

    /**
     * Looks it up.
     */
    #[Pure]
    public function get(string $key, int $by = 1): ?string // slow
    {
        $x = helper($key);
        return $this->items?->fetch($key) ?? Clock::now(new Item($x));
    }

    // Makes it.
    public function __construct(private int $a) { parent::__construct(); }

    # Nothing.
    abstract protected function nothing(): void;
}

// It can be drawn.
interface Shape { public function area(): float; }
/** Logs. */
trait Loggable { function log() { echo 1; } }
/** A suit. */
enum Suit: string { case A = 'a'; }

# Free.
function free(array $a = []): int { return \\count($a); }

// Later.
$later = function ($x) use ($free) { return free($x); };

if (!function_exists('str_has')) {
    // For old versions.
    function str_has($a) { return 1; }
}
?>
<p>end</p>
"""


def test_symbols_with_their_comments(tmp_path: Path) -> None:
    of_cache = "final class Cache extends Base implements Counts"
    found = finds(
        tmp_path,
        "Cache.php",
        SAMPLE,
        330,
        {
            "Cache": ("class", of_cache, "A cache that forgets.\n\n@template K", "/**\n * A cache"),
            "Cache.get": (
                "method",
                "public function get(string $key, int $by = 1): ?string",
                "Looks it up.",
                "/**\n     * Looks",
            ),
            "Cache.__construct": (
                "method",
                "public function __construct(private int $a)",
                "Makes it.",
                "// Makes",
            ),
            "Cache.nothing": (
                "method",
                "abstract protected function nothing(): void",
                "Nothing.",
                "# Nothing",
            ),
            "Shape": ("class", "interface Shape", "It can be drawn.", "// It can"),
            "Loggable": ("class", "trait Loggable", "Logs.", "/** Logs"),
            "Suit": ("class", "enum Suit: string", "A suit.", "/** A suit"),
            "free": ("function", "function free(array $a = []): int", "Free.", "# Free"),
            "later": ("function", "$later = function ($x) use ($free)", "Later.", "// Later"),
            "str_has": ("function", "function str_has($a)", "For old versions.", "// For old"),
        },
    )
    assert found["Cache.get"].calls == ["helper", "fetch", "now", "Item"]
    assert found["Cache.get"].header == (
        f"{of_cache}\nuse Acme\\Util\\Clock;\nuse function Acme\\helper;"
    )
    assert found["free"].calls == ["count"]
    assert found["Cache"].header == "use Acme\\{Base, Countable as Counts};"


def test_a_namespace_with_a_body(tmp_path: Path) -> None:
    text = "<?php\nnamespace A\\B {\n    /** F. */\n    function f() { return g(); }\n}\n"
    found = mined(tmp_path, "a.php", text, 90)
    assert found["A.B"].kind == "namespace"
    assert (found["A.B.f"].kind, found["A.B.f"].docstring) == ("function", "F.")


def test_damage() -> None:
    survives_damage("php", SAMPLE)
