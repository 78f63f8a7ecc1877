"""Mining Kotlin."""

from __future__ import annotations

from pathlib import Path

from language_sample import finds, mined, survives_damage

SAMPLE = """\
package com.acme.store

import kotlinx.coroutines.delay
import com.acme.util.Clock as Time
import com.acme.util.*

/** A cache that forgets. */
@Serializable
data class Cache<K, V>(private val size: Int) : Base<K>(size), Closeable {
    private val items = mutableMapOf<K, V>()

    // Looks it up.
    @Throws(IOException::class)
    override suspend fun get(key: K, by: Int = 1): V? { // slow
        delay(10)
        return items.fetch(key) ?: Time.now()
    }

    /** From two. */
    constructor(a: Int, b: Int) : this(a) { println(b) }

    init { check(size > 0) }

    companion object {
        // Makes one.
        @JvmStatic fun of(): Cache<Int, Int> = Cache(1)
    }
}

/**
 * Trims it.
 * @param by how much
 */
fun String.squeeze(by: Int = 1): String = trim().take(by)

/** One draws. */
fun interface Shape {
    /** Its area. */
    fun area(): Double
}

object Single {
    // Goes.
    fun `goes well`() { run() }
}

// What is called back.
typealias Handler = (Int) -> Unit
"""


def test_symbols_with_their_comments(tmp_path: Path) -> None:
    of_cache = "data class Cache<K, V>(private val size: Int) : Base<K>(size), Closeable"
    found = finds(
        tmp_path,
        "Cache.kt",
        SAMPLE,
        400,
        {
            "Cache": ("class", of_cache, "A cache that forgets.", "/** A cache"),
            "Cache.get": (
                "method",
                "override suspend fun get(key: K, by: Int = 1): V?",
                "Looks it up.",
                "// Looks it up.\n    @Throws",
            ),
            "Cache.constructor": (
                "method",
                "constructor(a: Int, b: Int)",
                "From two.",
                "/** From",
            ),
            "Cache.of": (
                "method",
                "fun of(): Cache<Int, Int>",
                "Makes one.",
                "// Makes one.\n        @Jvm",
            ),
            "String.squeeze": (
                "method",
                "fun String.squeeze(by: Int = 1): String",
                "Trims it.\n@param by how much",
                "/**\n * Trims",
            ),
            "Shape": ("class", "fun interface Shape", "One draws.", "/** One"),
            "Single": ("class", "object Single", None, "object"),
            "Handler": (
                "type",
                "typealias Handler = (Int) -> Unit",
                "What is called back.",
                "// What",
            ),
        },
    )
    assert found["Cache.get"].calls == ["delay", "fetch", "now"]
    assert found["Cache.get"].header == (
        f"{of_cache}\nimport kotlinx.coroutines.delay\nimport com.acme.util.Clock as Time"
    )
    assert found["String.squeeze"].calls == ["trim", "take"]
    assert found["Single"].header == ""


def test_a_name_in_backticks(tmp_path: Path) -> None:
    found = mined(tmp_path, "a.kt", SAMPLE, 90)
    assert found["Single.goes well"].signature == "fun `goes well`()"


def test_a_comment_below_the_imports_is_none_of_theirs(tmp_path: Path) -> None:
    text = "import a.b\n\n// About f.\nfun f() = b()\n"
    found = mined(tmp_path, "a.kt", text, 40)
    assert found["f"].text == "// About f.\nfun f() = b()\n"
    assert found["f"].header == "import a.b"


def test_damage() -> None:
    survives_damage("kotlin", SAMPLE)
