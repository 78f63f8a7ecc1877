"""Mining C#."""

from __future__ import annotations

from pathlib import Path

from language_sample import finds, mined, survives_damage

SAMPLE = """\
using System;
using System.Collections.Generic;
using Json = System.Text.Json;

namespace Acme.Store
{
    /// <summary>
    /// A cache that forgets.
    /// </summary>
    [Serializable]
    public sealed class Cache<K, V> : Base<K>, IDisposable where K : notnull
    {
        private readonly int size = 1;

        public int Plain { get; set; }

        /// <summary>Looks it up.</summary>
        [Obsolete("Get(2)")]
        public async Task<V?> Get(K key, int by = 1) // why
        {
            await Delay(10);
            return items.Fetch<V>(key) ?? Json.Read(new Clock(1)?.Now());
        }

        // Makes it.
        public Cache(int size) : base(size) { this.size = size; }

        /* Frees it. */
        ~Cache() { Close(); }

        // How many.
        public int Count => items.Count();

        /// Adds them.
        public static Cache operator +(Cache a, Cache b) { return Join(a, b); }

        public V this[int i] { get { return At(i); } }

        int Outer() { int Inner(int a) => a; return Inner(1); }
    }

    // It can be drawn.
    public interface IShape { double Area(); }

    /// A pair.
    public record Pair(int A, string B);

    public delegate int Handler(int a);
}
"""


def test_symbols_with_their_comments(tmp_path: Path) -> None:
    of_cache = "public sealed class Cache<K, V> : Base<K>, IDisposable where K : notnull"
    found = finds(
        tmp_path,
        "Cache.cs",
        SAMPLE,
        420,
        {
            "Acme.Store": ("namespace", "namespace Acme.Store", None, "namespace"),
            "Acme.Store.Cache": ("class", of_cache, "A cache that forgets.", "/// <summary>"),
            "Acme.Store.Cache.Get": (
                "method",
                "public async Task<V?> Get(K key, int by = 1)",
                "Looks it up.",
                "/// <summary>Looks",
            ),
            "Acme.Store.Cache.Cache": ("method", "public Cache(int size)", "Makes it.", "// Makes"),
            "Acme.Store.Cache.~Cache": ("method", "~Cache()", "Frees it.", "/* Frees"),
            "Acme.Store.Cache.Count": ("method", "public int Count", "How many.", "// How"),
            "Acme.Store.Cache.operator+": (
                "method",
                "public static Cache operator +(Cache a, Cache b)",
                "Adds them.",
                "/// Adds",
            ),
            "Acme.Store.Cache.this": ("method", "public V this[int i]", None, "public V"),
            "Acme.Store.Cache.Outer": ("method", "int Outer()", None, "int Outer"),
            "Acme.Store.IShape": (
                "class",
                "public interface IShape",
                "It can be drawn.",
                "// It can",
            ),
            "Acme.Store.Pair": (
                "class",
                "public record Pair(int A, string B)",
                "A pair.",
                "/// A pair",
            ),
            "Acme.Store.Handler": (
                "type",
                "public delegate int Handler(int a)",
                None,
                "public delegate",
            ),
        },
    )
    get = found["Acme.Store.Cache.Get"]
    assert get.calls == ["Delay", "Fetch", "Read", "Clock", "Now"]
    assert get.header == f"{of_cache}\nusing Json = System.Text.Json;"
    assert "Plain" in found["Acme.Store.Cache"].text  # stays with its class
    assert "Acme.Store.Cache.Outer.Inner" not in found


def test_a_namespace_for_the_whole_file(tmp_path: Path) -> None:
    text = "namespace Acme.Other;\n\n// A c.\nclass C { int F() => G(); }\n"
    found = mined(tmp_path, "a.cs", text, 90)
    assert found["C"].text.startswith("// A c.") and found["C"].calls == ["G"]


def test_damage() -> None:
    survives_damage("csharp", SAMPLE)
