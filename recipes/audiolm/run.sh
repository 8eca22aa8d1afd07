#!/usr/bin/env bash
# recipes/audiolm/run.sh CLIPS TOKENS OUT [options of train.py]: SoundStream, coarse, fine and the coarse stage's drafter.
# Needs .venv-peer (make test-peer) for the first three and .venv for the drafter.
set -euo pipefail
cd "$(dirname "$0")/../.."
clips=$1 tokens=$2 out=$3
shift 3
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
[ -f "$out/fine.pt" ] || "${PEER:-.venv-peer}/bin/python" recipes/audiolm/train.py "$clips" "$tokens" "$out" "$@"
[ -f "$out/small/draft.safetensors" ] || "${VENV:-.venv}/bin/python" recipes/audiolm/draft.py "$out"
