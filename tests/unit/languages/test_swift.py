"""Mining Swift."""

from __future__ import annotations

from pathlib import Path

from language_sample import finds, survives_damage

SAMPLE = """\
import Foundation
import struct UIKit.CGRect

/// A cache that forgets.
/// It is not safe.
@objc public final class Cache<K: Hashable, V>: Base, Codable where V: Equatable {
    private var items: [K: V] = [:]

    /// Looks it up.
    /// - Parameter key: the key
    @discardableResult
    public func get(_ key: K, by size: Int = 1) async throws -> V? { // slow
        let value = items.fetch(key)
        return helper(value) ?? Clock.now(CGRect(x: 1))
    }

    // Makes one.
    init(size: Int) { super.init(size: size) }

    /* Whole. */
    var count: Int { return items.total() }

    static func == (a: Cache, b: Cache) -> Bool { same(a, b) }
    subscript(i: Int) -> V? { return nil }
    deinit { close() }
}

// Squeezes.
extension String {
    /* Twice. */
    func twice() -> String { self + self }
}

/// It can be drawn.
protocol Shape: AnyObject {
    /// Its area.
    func area() -> Double
}

/// A suit.
enum Suit: Int {
    case hearts
    // How it reads.
    var label: String { name() }
}

/// Free.
func free<T>(_ a: T) -> T where T: Eq { a }

typealias Handler = (Int) -> Void
"""


def test_symbols_with_their_comments(tmp_path: Path) -> None:
    of_cache = "public final class Cache<K: Hashable, V>: Base, Codable where V: Equatable"
    found = finds(
        tmp_path,
        "Cache.swift",
        SAMPLE,
        420,
        {
            "Cache": ("class", of_cache, "A cache that forgets.\nIt is not safe.", "/// A cache"),
            "Cache.get": (
                "method",
                "public func get(_ key: K, by size: Int = 1) async throws -> V?",
                "Looks it up.\n- Parameter key: the key",
                "/// Looks it up.",
            ),
            "Cache.init": ("method", "init(size: Int)", "Makes one.", "// Makes"),
            "Cache.count": ("method", "var count: Int", "Whole.", "/* Whole"),
            "Cache.==": ("method", "static func == (a: Cache, b: Cache) -> Bool", None, "static"),
            "Cache.subscript": ("method", "subscript(i: Int) -> V?", None, "subscript"),
            "Cache.deinit": ("method", "deinit", None, "deinit"),
            "String": ("implementation", "extension String", "Squeezes.", "// Squeezes"),
            "Shape": ("class", "protocol Shape: AnyObject", "It can be drawn.", "/// It can"),
            "Suit": ("class", "enum Suit: Int", "A suit.", "/// A suit"),
            "free": ("function", "func free<T>(_ a: T) -> T where T: Eq", "Free.", "/// Free"),
            "Handler": ("type", "typealias Handler = (Int) -> Void", None, "typealias"),
        },
    )
    assert found["Cache.get"].calls == ["fetch", "helper", "now", "CGRect"]
    assert found["Cache.get"].header == f"{of_cache}\nimport struct UIKit.CGRect"
    assert found["free"].header == ""


def test_members_of_extensions_protocols_and_enums(tmp_path: Path) -> None:
    finds(
        tmp_path,
        "Cache.swift",
        SAMPLE,
        90,
        {
            "String.twice": ("method", "func twice() -> String", "Twice.", "/* Twice"),
            "Shape.area": ("method", "func area() -> Double", "Its area.", "/// Its area"),
            "Suit.label": ("method", "var label: String", "How it reads.", "// How"),
        },
    )


def test_damage() -> None:
    survives_damage("swift", SAMPLE)
