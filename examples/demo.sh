#!/usr/bin/env bash
# The main job on real input: Forge learns its own source, is judged on files it has not
# seen, and the result is exported as GGUF, checked in llama.cpp and made ready for Ollama.
set -euo pipefail
cd "$(dirname "$0")/.."
run=.forge/runs/demo
forge train src/ --recipe demo --run "$run" --fresh >/dev/null
forge export "$run" --quant q8_0 >/dev/null
forge deploy "$run" --name forge-demo --dry-run >/dev/null
echo "the run is in $run: run.json, metrics.jsonl, eval/raft.jsonl, export/"
