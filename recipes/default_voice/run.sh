#!/usr/bin/env bash
# A voice from a corpus, in numbered stages. Run it again after a stop: finished stages are skipped, trainers go on from
# their checkpoints.
#
#   recipes/default_voice/run.sh --corpus DIR [--corpus DIR ...] --out DIR [options] [SECTION.KEY=VALUE ...]
#
#   0 prepare    phonemes with the package's own front end; clips whose own phonemes differ are left out and listed
#   1 tokenize   semantic tokens from the audio; compared with given ones
#   2 align      a token-to-phoneme CTC; durations for clips that bring none
#   3 t2s        the text-to-semantic transformer (text gap in OUT/t2s/train.log)
#   4 vocoder    the unit vocoder
#   5 sampling   temperature and top-p, by word error and MOS on the held-out texts
#   6 draft      what the voice ships to draft with, on the target's own samples
#   7 drafters   the other ways to draft, on the same samples (table in OUT/drafters.md)
#   8 pack       OUT/voice/NAME
#   9 evaluate   OUT/evaluation.json: word and character errors, MOS, similarity, speed, exactness
#  10 benchmark  OUT/benchmark.json: speed of the finished voice, with and without speculation
#  11 push       where others find it (push.to=FOLDER or OWNER/NAME of the hub; without it nothing happens)
#
# Options: --dev DIR        held-out corpus (default: every 50th clip)
#          --config FILE    settings (default: config.toml beside this script)
#          --encoder NAME   speech encoder, hub name or folder
#          --centroids FILE k-means centroids (default: fitted)
#          --given DIR=FILE tokens that exist for a corpus: compared with those made from its audio
#          --pitch DIR=FILE the F0 that a corpus's synthesiser used (teacher_pitch.py), for the vocoder
#          --check N        make only N clips' tokens again, take the given ones for the rest
#          --from N, --to N first and last stage; --threads N; --device NAME
# Corpora: folders with meta.*.jsonl (recipes/default_voice/README.md), LJSpeech-shaped, LibriTTS-shaped, or a lhotse cut manifest.
# PYTHON names the interpreter (default: python3).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
config=$here/config.toml
stages=(prepare tokenize align t2s vocoder sampling draft drafters pack evaluate benchmark push)
from=0 to=11
corpora=() dev=() given=() pitch=() settings=()
usage() { sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit "${1:-0}"; }
# shellcheck source=recipes/json.sh
. "$here/../json.sh"

while (($#)); do
  case $1 in
    -h | --help) usage ;;
    --corpus) corpora+=("$2"); shift 2 ;;
    --dev) dev+=("$2"); shift 2 ;;
    --given) given+=("$2"); shift 2 ;;
    --pitch) pitch+=("$2"); shift 2 ;;
    --out) settings+=("out=$2"); shift 2 ;;
    --config) config=$2; shift 2 ;;
    --encoder) settings+=("tokenize.encoder=$2"); shift 2 ;;
    --centroids) settings+=("tokenize.centroids=$2"); shift 2 ;;
    --check) settings+=("tokenize.check=$2"); shift 2 ;;
    --threads | --device | --seed) settings+=("${1#--}=$2"); shift 2 ;;
    --from) from=$2; shift 2 ;;
    --to) to=$2; shift 2 ;;
    *.*=* | progress=*) settings+=("$1"); shift ;;
    *) echo "run.sh: unknown argument $1" >&2; usage 2 >&2 ;;
  esac
done
((${#corpora[@]})) && settings+=("prepare.corpora=$(list "${corpora[@]}")")
((${#dev[@]})) && settings+=("prepare.dev=$(list "${dev[@]}")")
((${#given[@]})) && settings+=("tokenize.given=$(pairs "${given[@]}")")
((${#pitch[@]})) && settings+=("vocoder.pitch=$(pairs "${pitch[@]}")")
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "$python" -m spear_spec.training.recipe.run "$config" --stages "${stages[@]:from:to-from+1}" --set "${settings[@]}"
