"""Mining Scala, with braces and without."""

from __future__ import annotations

from pathlib import Path

from language_sample import finds, mined, survives_damage

SAMPLE = """\
package com.acme.store

import scala.collection.mutable
import com.acme.{Clock, Base => B}

/** A cache that forgets.
  *
  * It is not safe.
  */
@serializable
final case class Cache[K, V](size: Int) extends B[K](size) with Closeable {
  private val items = mutable.Map.empty[K, V]

  /** Looks it up. */
  @throws[Exception]
  override def get(key: K, by: Int = 1)(implicit c: Clock): Option[V] = { // slow
    delay(10)
    items.fetch(key).map(x => new Item(x))
  }

  // Short.
  def count: Int = items.size

  /* Its key. */
  type Key = K
}

// Its companion.
object Cache {
  // Makes one.
  def of[A](a: A): Cache[A, A] = Cache.apply[A](1)
  // Adds one.
  val next = (x: Int) => x + 1
}

// It can be drawn.
trait Shape { def area: Double }

/** What is called back. */
type Handler = Int => Unit
"""
INDENTED = """\
// By size.
given bySize: Ordering[Int] with
  // Compares.
  def compare(a: Int, b: Int) = diff(a, b)

// More of strings.
extension (s: String)
  // Twice.
  def twice: String = s + s

// A walker.
class Walker:
  // Goes.
  def go(x: Int): Int =
    x + 1
  end go
end Walker

enum Color(val rgb: Int):
  case Red extends Color(1)
"""


def test_symbols_with_their_comments(tmp_path: Path) -> None:
    of_cache = "final case class Cache[K, V](size: Int) extends B[K](size) with Closeable"
    found = finds(
        tmp_path,
        "Cache.scala",
        SAMPLE,
        250,
        {
            "Cache": (
                "class",
                of_cache,
                "A cache that forgets.\n\nIt is not safe.",
                "/** A cache",
            ),
            "Cache.get": (
                "method",
                "override def get(key: K, by: Int = 1)(implicit c: Clock): Option[V]",
                "Looks it up.",
                "/** Looks",
            ),
            "Cache.count": ("method", "def count: Int", "Short.", "// Short"),
            "Cache.Key": ("type", "type Key = K", "Its key.", "/* Its"),
            "Cache.of": ("method", "def of[A](a: A): Cache[A, A]", "Makes one.", "// Makes"),
            "Cache.next": ("method", "val next = (x: Int)", "Adds one.", "// Adds"),
            "Shape": ("class", "trait Shape", "It can be drawn.", "// It can"),
            "Handler": (
                "type",
                "type Handler = Int => Unit",
                "What is called back.",
                "/** What",
            ),
        },
    )
    assert found["Cache.get"].calls == ["delay", "fetch", "map", "Item"]
    assert found["Cache.get"].header == f"{of_cache}\nimport com.acme.{{Clock, Base => B}}"
    assert found["Cache.of"].calls == ["apply"] and found["Cache.of"].header == "object Cache"


def test_by_indentation(tmp_path: Path) -> None:
    finds(
        tmp_path,
        "a.scala",
        INDENTED,
        120,
        {
            "bySize": ("class", "given bySize: Ordering[Int] with", "By size.", "// By"),
            "bySize.compare": ("method", "def compare(a: Int, b: Int)", "Compares.", "// Comp"),
            "String": ("implementation", "extension (s: String)", "More of strings.", "// More"),
            "String.twice": ("method", "def twice: String", "Twice.", "// Twice"),
            "Walker": ("class", "class Walker", "A walker.", "// A walker"),
            "Walker.go": ("method", "def go(x: Int): Int", "Goes.", "// Goes"),
            "Color": ("class", "enum Color(val rgb: Int)", None, "enum"),
        },
    )
    found = mined(tmp_path, "a.scala", INDENTED, 120)
    assert found["Walker.go"].text.endswith("  end go\nend Walker\n\n")


def test_damage() -> None:
    survives_damage("scala", SAMPLE)
    survives_damage("scala", INDENTED)
