#!/usr/bin/env bash
# Reading learnt from minutes of parallel speech, as SPEAR-TTS does, in stages. Run it again after a stop: finished stages
# are skipped, trainings go on from their checkpoints.
#
#   recipes/low_resource/run.sh --corpus DIR [--corpus DIR ...] --parallel-minutes N --speaker NAME --out DIR [options]
#
#   prepare    clips with phonemes, of all the audio
#   tokenize   their semantic tokens
#   parallel   the clips whose text may be used: N minutes of the speaker, drawn by chance
#   pretrain   denoising: 60 % of the tokens of all audio deleted and written again (once for all N)
#   scratch    arm 1: text to tokens on the parallel part alone
#   finetune   arm 2: from the denoising model, upper encoder layers and decoder frozen
#   ctc        tokens to phones on the parallel part: judges pseudo-pairs and finds their durations
#   back       back-translation: tokens to text, the decoder alone learns
#   pseudo     a text for every clip without one, sampled and filtered
#   forward    text to tokens on the pseudo-pairs, from the denoising model
#   final      arm 3: the parallel part again
#   evaluate   character and word error of every arm that is there; OUT/table.md
#
# Options: --parallel-minutes N    may be given more than once: one after the other; "all" counts every clip as parallel
#                                  (then there is no arm 3)
#          --dev DIR               held-out corpus (default: every 50th clip)
#          --config FILE           settings (default: conf/tiny.toml beside this script; base.toml is what a lab runs)
#          --encoder NAME          speech encoder, hub name or folder
#          --centroids FILE        k-means centroids (default: fitted)
#          --given DIR=FILE        tokens that exist for a corpus: compared with those made from its audio
#          --check N               make only N clips' tokens again, take the given ones for the rest
#          --voice NAME            voice whose vocoder speaks the arms (its tokens must be the same; default kokoro-duo)
#          --no-judge              compare by held-out likelihood alone: no vocoder, no Whisper
#          --stages "A B"          only these; --threads N; --device NAME; --seed N
#          SECTION.KEY=VALUE       any setting of spear_spec/training/low_resource/plan.py
# PYTHON names the interpreter (default: python3).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
config=$here/conf/tiny.toml
corpora=() dev=() given=() minutes=() settings=() stages=()
usage() { sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit "${1:-0}"; }
# shellcheck source=recipes/json.sh
. "$here/../json.sh"

while (($#)); do
  case $1 in
    -h | --help) usage ;;
    --corpus) corpora+=("$2"); shift 2 ;;
    --dev) dev+=("$2"); shift 2 ;;
    --given) given+=("$2"); shift 2 ;;
    --parallel-minutes) minutes+=("$2"); shift 2 ;;
    --speaker) settings+=("parallel.speaker=$2"); shift 2 ;;
    --out) settings+=("out=$2"); shift 2 ;;
    --config) config=$2; shift 2 ;;
    --encoder) settings+=("tokenize.encoder=$2"); shift 2 ;;
    --centroids) settings+=("tokenize.centroids=$2"); shift 2 ;;
    --check) settings+=("tokenize.check=$2"); shift 2 ;;
    --voice) settings+=("evaluate.voice=$2"); shift 2 ;;
    --no-judge) settings+=("evaluate.judge=false"); shift ;;
    --stages) read -ra stages <<<"$2"; shift 2 ;;
    --threads | --device | --seed) settings+=("${1#--}=$2"); shift 2 ;;
    *.*=* | progress=*) settings+=("$1"); shift ;;
    *) echo "run.sh: unknown argument $1" >&2; usage 2 >&2 ;;
  esac
done
((${#corpora[@]})) && settings+=("prepare.corpora=$(list "${corpora[@]}")")
((${#dev[@]})) && settings+=("prepare.dev=$(list "${dev[@]}")")
((${#given[@]})) && settings+=("tokenize.given=$(pairs "${given[@]}")")
((${#minutes[@]})) || minutes=(15)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
for one in "${minutes[@]}"; do
  [[ $one == all ]] && one=0
  "$python" -m spear_spec.training.low_resource.run "$config" --stages "${stages[@]}" --set "${settings[@]}" "parallel.minutes=$one"
done
