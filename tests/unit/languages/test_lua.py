"""Mining Lua."""

from __future__ import annotations

from pathlib import Path

from language_sample import finds, survives_damage

SAMPLE = """\
local json = require("cjson.safe")
local lfs = require "lfs"
local M = {}

--- Looks it up.
-- @param key the key
function M.get(key, by) -- slow
  local x = helper(key)
  return M.items:fetch(key) or json.decode(x)
end

-- Puts it.
function M:put(key, value)
  self:set(key, #value)
end

--[[ It is
local. ]]
local function helper(a) return tostring(a) end

-- Later.
M.later = function(a, ...)
  print "x"
end

-- Held.
local held = function(x) return lfs.dir(x) end

function M.empty() end

local t = { run = function(self) return 1 end }
return M
"""


def test_symbols_with_their_comments(tmp_path: Path) -> None:
    found = finds(
        tmp_path,
        "cache.lua",
        SAMPLE,
        160,
        {
            "M.get": (
                "method",
                "function M.get(key, by)",
                "Looks it up.\n@param key the key",
                "--- Looks",
            ),
            "M.put": ("method", "function M:put(key, value)", "Puts it.", "-- Puts"),
            "helper": ("function", "local function helper(a)", "It is\nlocal.", "--[[ It"),
            "M.later": ("method", "M.later = function(a, ...)", "Later.", "-- Later"),
            "held": ("function", "local held = function(x)", "Held.", "-- Held"),
            "M.empty": ("method", "function M.empty()", None, "function"),
        },
    )
    assert found["M.get"].calls == ["helper", "fetch", "decode"]
    assert found["M.get"].header == 'local json = require("cjson.safe")'
    assert found["held"].header == 'local lfs = require "lfs"'
    assert found["M.later"].calls == ["print"]


def test_damage() -> None:
    survives_damage("lua", SAMPLE)
