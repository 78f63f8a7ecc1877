"""Which language a file is in: by its name, its first line, or what else tells two apart.

A language with symbols is a query file, `queries/<grammar>.scm`. The comments at its head say
which files are in it (`; extensions: .rb .rake`, `; names: Rakefile`) and which interpreters
run it (`; interpreters: ruby jruby`). The others, below, are cut where their syntax allows.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath

from forge_cli.core.errors import UsageError

# Grammar, endings, file names, and interpreters after "!".
_CODE = """
actionscript .as
ada .adb .ads
agda .agda
apex .trigger .apex
arduino .ino
asm .s .asm
bicep .bicep
bitbake .bb .bbclass .bbappend
bsl .bsl
cairo .cairo
clarity .clar
clojure .clj .cljs .cljc .edn
cmake .cmake CMakeLists.txt
cobol .cob .cbl .cpy
commonlisp .lisp .lsp .asd
cuda .cu .cuh
d .d .di
dart .dart
dockerfile .dockerfile Dockerfile Containerfile
elisp .el
elixir .ex .exs !elixir
elm .elm
erlang .erl .hrl !escript
fennel .fnl
firrtl .fir
fish .fish !fish
fortran .f90 .f95 .f03 .f08 .for .f
fsharp .fs .fsx
fsharp_signature .fsi
func .fc
gdscript .gd
gleam .gleam
glsl .glsl .vert .frag .geom .tesc .tese .comp
gn .gn .gni
groovy .groovy .gradle Jenkinsfile !groovy
hack .hack .hh.php
hare .ha
haskell .hs !runhaskell
haxe .hx
hcl .hcl
hlsl .hlsl
ispc .ispc
janet .janet !janet
jsonnet .jsonnet .libsonnet
julia .jl !julia
kconfig Kconfig
linkerscript .ld .lds
llvm .ll
luau .luau
magik .magik
make .mk .mak Makefile makefile GNUmakefile !make
matlab .matlab
meson meson.build meson_options.txt
netlinx .axs .axi
nim .nim .nims
ninja .ninja
nix .nix
nqc .nqc
ocaml .ml !ocaml
ocaml_interface .mli
odin .odin
pascal .pas .dpr .lpr
perl .pl .pm !perl
pony .pony
powershell .ps1 .psm1 !pwsh
prisma .prisma
puppet .pp
purescript .purs
qmljs .qml
r .r !Rscript
racket .rkt !racket
re2c .re2c
rego .rego
scheme .scm .ss .sld !guile
smali .smali
smithy .smithy
solidity .sol
sparql .rq .sparql
squirrel .nut
starlark .bzl BUILD BUILD.bazel WORKSPACE Tiltfile
tablegen .td
tcl .tcl !tclsh !wish !expect
terraform .tf .tfvars
ungrammar .ungram
uxntal .tal
verilog .v .vh .sv .svh
vhdl .vhd .vhdl
vim .vim .vimrc
wast .wast
wat .wat
wgsl .wgsl
yuck .yuck
zig .zig
"""
# Documents, templates and configuration: their chunks are text, as Markdown's are.
_PROSE = """
astro .astro
beancount .beancount
bibtex .bib
capnp .capnp
chatito .chatito
cpon .cpon
css .css
dtd .dtd
embeddedtemplate .erb .ejs
gitattributes .gitattributes
gitignore .gitignore .dockerignore .npmignore
gomod go.mod
graphql .graphql .gql
heex .heex
html .html .htm .xhtml
hyprlang hyprland.conf
ini .ini .cfg .editorconfig .gitconfig .desktop .service
json .json .jsonc .json5 .webmanifest
kdl .kdl
latex .tex .sty
mermaid .mmd .mermaid
notebook .ipynb
org .org
pgn .pgn
po .po .pot
properties .properties
proto .proto
pymanifest MANIFEST.in
qmldir qmldir
readline .inputrc
ron .ron
rst .rst
scss .scss
svelte .svelte
thrift .thrift
toml .toml
twig .twig
typst .typ
udev .rules
vue .vue
xcompose .XCompose
xml .xml .xsd .xsl .xslt .svg .plist .csproj .props .targets .rng
yaml .yaml .yml .clang-format .clang-tidy
"""
# Cut at paragraphs. Tables of values (.csv) and sums of packages are in neither list:
# nobody learns a code base from them.
_TEXT = """
text .txt .text .adoc .asciidoc .textile .log .conf .bat .cmd .jinja .j2 .tmpl .less .sass
text LICENSE LICENCE COPYING NOTICE CHANGELOG CHANGES AUTHORS CONTRIBUTORS README NEWS TODO
text INSTALL HACKING MAINTAINERS CODEOWNERS OWNERS Procfile .mailmap
"""

# Notebooks are read as JSON. The scanners of the others' grammars can go round without end, where
# nothing can stop them.
_WITHOUT_GRAMMAR = {"cobol", "notebook", "perl", "text"}

_HEAD = re.compile(r"^; (extensions|names|interpreters): (.+)$", re.MULTILINE)
_CPP_ONLY = re.compile(
    rb"^[ \t]*(class\s+\w+[^;]*\{|namespace\b|template\s*<|(public|private|protected)\s*:)",
    re.MULTILINE,
)
# `@interface` alone may stand in a comment for Doxygen.
_OBJC_ONLY = re.compile(
    rb"^(@end\s*$|@(class|import)\s[^;\n]*;|[ \t]*#[ \t]*import\b)", re.MULTILINE
)
# What a name alone leaves open.
_MAY_TURN_OUT = {
    "c": ("cpp", "objc"), "objc": ("matlab",), "php": ("text",), "typescript": ("xml",),
}  # fmt: skip


@dataclass(frozen=True)
class Language:
    """A language that can be mined.

    Attributes:
        endings, names, interpreters: of its files, of some whole files, of its scripts.
        tagged: a query finds its symbols; else it is cut where its syntax allows.
        parsed: there is a grammar that can be trusted; else it is cut at blank lines.
        prose: what is outside of definitions is text, not a module.
    """

    name: str
    endings: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    interpreters: tuple[str, ...] = ()
    tagged: bool = False
    parsed: bool = True
    prose: bool = False


@cache
def languages() -> dict[str, Language]:
    """All languages by name: those with a query first."""
    found = {
        language.name: language
        for file in sorted(files("forge_cli.mine").joinpath("queries").iterdir(), key=str)
        if (language := _of_query(file.name.removesuffix(".scm"), file.read_text("utf-8")))
    }
    for table, prose in ((_CODE, False), (_PROSE, True)):
        for line in table.split("\n"):
            if words := line.split():
                found[words[0]] = _of_words(words[0], words[1:], prose)
    found["text"] = _of_words("text", _TEXT.replace("text ", " ").split(), True)
    return found


def _of_query(name: str, text: str) -> Language | None:
    head = {key: tuple(value.split()) for key, value in _HEAD.findall(text)}
    if not head:
        return None  # only others inherit it
    return Language(
        name,
        head.get("extensions", ()),
        head.get("names", ()),
        head.get("interpreters", ()),
        tagged=True,
        prose=name == "markdown",
    )


def _of_words(name: str, words: list[str], prose: bool) -> Language:
    # `.gitignore` is an ending of itself.
    return Language(
        name,
        tuple(word for word in words if word[0] == "."),
        tuple(word for word in words if word[0] not in ".!"),
        tuple(word[1:] for word in words if word[0] == "!"),
        parsed=name not in _WITHOUT_GRAMMAR,
        prose=prose,
    )


@cache
def _indices() -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Endings, names and interpreters → language."""
    every = list(languages().values())
    endings = {ending.lower(): one.name for one in every for ending in one.endings}
    names = {name: one.name for one in every for name in one.names}
    interpreters = {runs: one.name for one in every for runs in one.interpreters}
    return endings, names, interpreters


def language_of(path: str) -> str | None:
    """The language by the file's name; "text" without a grammar; None when unknown."""
    endings, names, _ = _indices()
    pure = PurePosixPath(path)
    # `.gitignore` has no suffix.
    ending = (pure.suffix or pure.name).lower()
    return names.get(pure.name) or endings.get(ending)


def refine(language: str | None, path: str, data: bytes) -> str | None:
    """The language, where only the content can tell: a `.h` may hold C++, a script anything."""
    ending = PurePosixPath(path).suffix.lower()
    if language is None and data.startswith(b"#!") and not ending:
        return _indices()[2].get(_interpreter(data))
    if ending == ".h":
        if _OBJC_ONLY.search(data):
            return "objc"
        return "cpp" if _CPP_ONLY.search(data) else language
    if ending == ".m":
        return language if _OBJC_ONLY.search(data) or b"#include" in data else "matlab"
    if ending == ".inc":
        return language if b"<?" in data else "text"
    if ending == ".ts":  # Qt's translations
        return "xml" if data.lstrip().startswith((b"<?xml", b"<!DOCTYPE TS")) else language
    return language


def _interpreter(data: bytes) -> str:
    """What runs a script: `python` of `#!/usr/bin/env -S python3.12 -u`."""
    words = data[2 : data.find(b"\n") if b"\n" in data else None][:200].decode("utf-8", "replace")
    parts = [PurePosixPath(word).name for word in words.split()]
    if parts[:1] == ["env"]:
        parts = [word for word in parts[1:] if word[0] != "-" and "=" not in word]
    return re.sub(r"[\d.]+$", "", parts[0]) if parts else ""


def may_be(path: str, langs: tuple[str, ...]) -> bool:
    """Whether a file can be in one of `langs`, before its content is known."""
    language = language_of(path)
    if language is None:
        return not PurePosixPath(path).suffix
    return bool({language, *_MAY_TURN_OUT.get(language, ())} & set(langs))


def check_languages(langs: tuple[str, ...]) -> None:
    """Raise UsageError for a name that is not one of `languages()`."""
    known = languages()
    for lang in langs:
        if lang not in known:
            near = difflib.get_close_matches(lang, known, 1)
            tagged = ", ".join(name for name, one in known.items() if one.tagged)
            hint = f"did you mean {near[0]}?" if near else f"known: {tagged}, text and others"
            raise UsageError(f"{lang}: unknown language", hint)
