#!/usr/bin/env bash
# recipes/audiolm/run.sh CORPUS OUT [CONF]: from a folder of LibriTTS's shape to a voice that speaks through
# audiolm-pytorch's transformers: OUT/stage, and OUT/hello.wav. CONF: tiny (default), base, or a file.
#   VOICE     whose semantic tokens, and who then speaks (default: the voice that ships)
#   ENCODER   folder of the speech encoder, where the hub cannot be reached
#   PROMPTS   "speaker=clip.wav ...": clips whose voices the voice's speakers get
#   VENV, PEER  environments (.venv; .venv-peer: `make test-peer` makes it, for the package's trainers)
# A step whose result stands in OUT already is not done again: after a stop the same call goes on.
set -euo pipefail
corpus=$(realpath "$1") out=$(realpath -m "$2") conf=${3:-tiny}
cd "$(dirname "$0")/../.."
[ -f "$conf" ] || conf=recipes/audiolm/conf/$conf.toml
[ -f "$conf" ] || { echo "there is no configuration $conf" >&2; exit 2; }
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONPATH=$PWD
python=${VENV:-.venv}/bin/python peer=${PEER:-.venv-peer}/bin/python
[ -x "$peer" ] || { echo "$peer is missing: run make .venv-peer/.created (the real audiolm-pytorch)" >&2; exit 2; }
voice=(${VOICE:+--voice "$VOICE"}) encoder=(${ENCODER:+--encoder "$ENCODER"}) prompts=()
for one in ${PROMPTS:-}; do prompts+=(--prompt "$one"); done
[ -z "${ENCODER:-}" ] || export SPEAR_SPEC_ENCODER=$ENCODER
minutes=$("$python" -c 'import sys, tomllib; print(tomllib.load(open(sys.argv[1], "rb"))["data"]["minutes"])' "$conf")

step() { echo "== $1 ($(( SECONDS )) s)"; }
step "semantic tokens"
[ -f "$out/clips.tsv" ] || "$python" recipes/audiolm/prepare.py "$corpus" "$out" --minutes "$minutes" "${voice[@]}" "${encoder[@]}"
step "SoundStream, coarse, fine"
[ -f "$out/fine.pt" ] || "$peer" recipes/audiolm/train.py "$out" --conf "$conf"
step "drafter"
[ -f "$out/small/shape.json" ] || "$python" recipes/audiolm/draft.py "$out" --conf "$conf"
step "stage"
"$python" recipes/audiolm/pack.py "$out" --conf "$conf" "${voice[@]}" "${prompts[@]}"
step "speech"
"$python" -m spear_spec say "${TEXT:-The quick brown fox jumps over the lazy dog.}" "${voice[@]}" --acoustic "$out/stage" -o "$out/hello.wav"
step "done: $out/hello.wav"
