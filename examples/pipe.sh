#!/usr/bin/env bash
# All stages as one shell pipeline: examples/pipe.sh REPO
# Each stage reads JSONL, writes JSONL, and refuses a stream whose sender died half-way.
set -euo pipefail
forge mine "$1" | forge raft | forge validate | forge train - | forge eval - |
  forge export - | forge deploy - --name my-repo --dry-run
