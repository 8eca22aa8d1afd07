#!/usr/bin/env bash
# The stages of recipes/default_voice on LibriTTS: run.sh --corpus LibriTTS/train-clean-100 --dev LibriTTS/dev-clean --out DIR
# Options as there (--help). Speakers of the dev folder that the training folder lacks are left out.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "$here/../default_voice/run.sh" --config "$here/config.toml" "$@"
