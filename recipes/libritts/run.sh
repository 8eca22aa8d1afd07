#!/usr/bin/env bash
# From LibriTTS to a voice of many speakers, in numbered stages. Run it again after a stop or a kill: what is finished is
# passed over, the rest goes on where it was.
#
#   recipes/libritts/run.sh --data LibriTTS --out DIR [--conf base|small|tiny|FILE] [options] [SECTION.KEY=VALUE ...]
#
#   0 download   the subsets that the settings name and --data lacks, from OpenSLR; a folder that is there is used
#   1 prepare    through lhotse; phonemes; clips that are damaged, clipped, too long or not what their text says are left
#                out (OUT/{prepared,dev,test}/dropped.tsv); readers of dev and test are not trained on
#   2 tokenize   k-means on a sample of the speech, then semantic tokens of all of it
#   3 align      a token-to-phoneme CTC: durations, and clips whose text it doubts (OUT/prepared/doubtful.tsv)
#   4 t2s        the text-to-semantic transformer
#   5 vocoder    the acoustic stage
#   6 drafters   sampling, the voice's draft, the other ways to draft (OUT/drafters.md)
#   7 evaluate   the voice put together (OUT/voice/NAME) and judged, on unseen readers too (OUT/evaluation.json)
#   8 benchmark  speed, with and without speculation (OUT/benchmark.json)
#   9 pack       the voice, and where others find it: push.to=FOLDER or OWNER/NAME of the Hugging Face hub
#
# Options: --data DIR       the folder LibriTTS: DIR/SPEAKERS.txt, DIR/train-clean-100/...
#          --conf           base: what a lab runs (the default); small: some core-hours; tiny: minutes; or a file
#          --from N, --to N first and last stage
#          --workers N      processes of stages 1 to 3; --ray ADDRESS (or local): workers of Ray Data instead
#          --threads N, --device NAME, --gpus N (stage 4, through accelerate)
#          --encoder NAME   speech encoder: hub name, folder, or torchaudio:HUBERT_BASE and the like
#          --centroids FILE k-means centroids, instead of fitting them
# PYTHON names the interpreter (default: python3).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
conf=base from=0 to=9 gpus=1
settings=()
stages=(download prepare tokenize align t2s vocoder "sampling draft drafters" "pack evaluate" benchmark "pack push")
usage() { sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit "${1:-0}"; }

while (($#)); do
  case $1 in
    -h | --help) usage ;;
    --*) (($# > 1)) || { echo "run.sh: $1 needs a value" >&2; exit 2; } ;;&
    --data) settings+=("prepare.data=$2"); shift 2 ;;
    --conf) conf=$2; shift 2 ;;
    --out | --threads | --device | --seed | --workers | --ray) settings+=("${1#--}=$2"); shift 2 ;;
    --encoder | --centroids) settings+=("tokenize.${1#--}=$2"); shift 2 ;;
    --gpus) gpus=$2; shift 2 ;;
    --from) from=$2; shift 2 ;;
    --to) to=$2; shift 2 ;;
    *.*=* | progress=*) settings+=("$1"); shift ;;
    *) echo "run.sh: unknown argument $1" >&2; usage 2 >&2 ;;
  esac
done
[[ -f $conf ]] || conf=$here/conf/$conf.toml
[[ $from =~ ^[0-9]$ && $to =~ ^[0-9]$ ]] || { echo "run.sh: --from and --to are stages 0 to 9" >&2; exit 2; }
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
for ((n = from; n <= to; n++)); do
  echo "[$n] ${stages[n]}"
  if ((n == 0)); then
    "$python" -m spear_spec.training.recipe.download "$conf" --set "${settings[@]}"
  elif ((n == 4 && gpus > 1)); then
    "$python" -m accelerate.commands.launch --multi_gpu --num_processes "$gpus" \
      -m spear_spec.training.recipe.run "$conf" --stages t2s --set "${settings[@]}"
  else
    # shellcheck disable=SC2086  # several stages of the package
    "$python" -m spear_spec.training.recipe.run "$conf" --stages ${stages[n]} --set "${settings[@]}"
  fi
done
