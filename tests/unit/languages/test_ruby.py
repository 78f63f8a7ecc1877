"""Mining Ruby."""

from __future__ import annotations

from pathlib import Path

from language_sample import finds, mined, survives_damage

SAMPLE = """\
# frozen_string_literal: true

require "json"
require_relative "./wall_clock"

module Acme
  # A cache that forgets.
  #
  # It is not safe.
  class Cache < Base
    include Comparable
    attr_reader :size

    # Looks it up.
    #
    # @param key [String]
    def get(key, by: 1, &block) # slow
      fetch(key) { |x| x.strip } || WallClock.now
    end

    # Makes one.
    def self.of(*args) = new(*args)

    # Hidden.
    private def hidden
      helper :a
    end

    def ==(other)
      size == other.size
    end

    class << self
      # Builds.
      def build; end
    end
  end

  # Mixed in.
  module Walk
    # Goes.
    def walk?
      JSON.parse(<<~TEXT)
        { "a": 1 }
      TEXT
    end
  end

  # A point.
  Point = Struct.new(:x, :y) do
    def length; Math.sqrt(x); end
  end
end

# Free.
def free(a, b = 1)
  puts a
end
"""


def test_symbols_with_their_comments(tmp_path: Path) -> None:
    found = finds(
        tmp_path,
        "cache.rb",
        SAMPLE,
        200,
        {
            "Acme": ("namespace", "module Acme", None, "module Acme"),
            "Acme.Cache": (
                "class",
                "class Cache < Base",
                "A cache that forgets.\n\nIt is not safe.",
                "# A cache",
            ),
            "Acme.Cache.get": (
                "method",
                "def get(key, by: 1, &block)",
                "Looks it up.\n\n@param key [String]",
                "# Looks",
            ),
            "Acme.Cache.of": ("method", "def self.of(*args)", "Makes one.", "# Makes"),
            "Acme.Cache.hidden": (
                "method",
                "def hidden",
                "Hidden.",
                "# Hidden.\n    private def hidden",
            ),
            "Acme.Cache.==": ("method", "def ==(other)", None, "def =="),
            "Acme.Cache.build": ("method", "def build", "Builds.", "# Builds"),
            "Acme.Walk": ("namespace", "module Walk", "Mixed in.", "# Mixed"),
            "Acme.Walk.walk?": ("method", "def walk?", "Goes.", "# Goes"),
            "Acme.Point": ("class", "Point = Struct.new(:x, :y)", "A point.", "# A point"),
            "free": ("function", "def free(a, b = 1)", "Free.", "# Free"),
        },
    )
    assert found["Acme.Cache.get"].calls == ["fetch", "strip", "now"]
    assert found["Acme.Cache.get"].header == ('class Cache < Base\nrequire_relative "./wall_clock"')
    assert found["Acme.Walk.walk?"].header == 'module Walk\nrequire "json"'


def test_a_class_named_by_its_path_and_a_script(tmp_path: Path) -> None:
    text = "#!/usr/bin/env ruby\n# About a.\nclass Acme::Other\n  def a; end\nend\n"
    found = mined(tmp_path, "run", text, 400)
    assert found["Acme.Other"].language == "ruby"
    assert found["Acme.Other"].docstring == "About a."


def test_damage() -> None:
    survives_damage("ruby", SAMPLE)
