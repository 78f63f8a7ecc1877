"""Mining Objective-C."""

from __future__ import annotations

from pathlib import Path

from forge_cli import mine
from language_sample import finds, mined, survives_damage

SAMPLE = """\
#import <Foundation/Foundation.h>
#import "Cache.h"
@import UIKit;

/** A cache that forgets. */
@interface Cache : NSObject <NSCopying>
@property (nonatomic, strong) NSString *name;
/// Looks it up.
- (id)objectForKey:(NSString *)key default:(id)value;
@end

// What is private.
@interface Cache (Private)
- (void)secret;
@end

/// Twice.
static int twice(int a) { return add(a, a); }

// The cache's insides.
@implementation Cache {
  int _x;
}

#pragma mark - Reading

// Looks it up.
- (id)objectForKey:(NSString *)key default:(id)value { // slow
  return [[self.items fetch:key] with:[Foo new] and:twice(1)];
}

/* The one. */
+ (instancetype)shared
{
  static Cache *one;
  dispatch_once(&token, ^{ one = [[self alloc] init]; });
  return one;
}

@end

/// How to forget.
typedef NS_ENUM(NSInteger, Mode) {
  ModeOldest,
  ModeLeast,
};
"""


def test_symbols_with_their_comments(tmp_path: Path) -> None:
    found = finds(
        tmp_path,
        "Cache.m",
        SAMPLE,
        300,
        {
            "Cache": (
                "class",
                "@interface Cache : NSObject <NSCopying>",
                "A cache that forgets.",
                "/** A cache",
            ),
            "twice": ("function", "static int twice(int a)", "Twice.", "/// Twice"),
            "Cache.objectForKey:default:": (
                "method",
                "- (id)objectForKey:(NSString *)key default:(id)value",
                "Looks it up.",
                "// Looks",
            ),
            "Cache.shared": ("method", "+ (instancetype)shared", "The one.", "/* The one"),
        },
    )
    get = found["Cache.objectForKey:default:"]
    assert get.calls == ["fetch:", "with:and:", "new", "twice"]
    assert get.header == "@implementation Cache"
    assert found["Cache.shared"].header == '@implementation Cache\n#import "Cache.h"'


def test_categories_and_enumerations(tmp_path: Path) -> None:
    (tmp_path / "Cache.m").write_text(SAMPLE)
    chunks = [(c.kind, c.symbol, c.docstring) for c in mine.run(tmp_path, max_chars=300, jobs=1)]
    assert ("implementation", "Cache", "What is private.") in chunks
    assert ("implementation", "Cache", "The cache's insides.") in chunks
    assert ("type", "Mode", "How to forget.") in chunks


def test_a_header_file_of_objective_c_is_not_read_as_c(tmp_path: Path) -> None:
    (tmp_path / "a.h").write_text("#import <X/X.h>\n@interface A : B\n- (void)go;\n@end\n")
    (tmp_path / "b.m").write_text("function y = f(x)\n  y = x;\nend\n")
    found = {c.path: (c.language, c.symbol) for c in mine.run(tmp_path, jobs=1)}
    assert found == {"a.h": ("objc", "A"), "b.m": ("matlab", None)}


def test_damage() -> None:
    survives_damage("objc", SAMPLE)


def test_a_macro_that_looks_like_a_function_is_no_symbol(tmp_path: Path) -> None:
    text = (
        "@implementation A\n\n// Exported.\nRCT_EXPORT_METHOD(get : (double)a with : (double)b)\n"
        "{\n  go(a);\n}\n\n// Goes.\n- (void)go {\n}\n@end\n"
    )
    symbols = set(mined(tmp_path, "A.mm", text, 90))
    assert {symbol.split(".")[-1] for symbol in symbols} <= {"", "A", "go"}
