#!/usr/bin/env bash
# Training stages of a recipe on a GPU machine that is lent for one command at a time: it gets a copy of the working tree
# (64 MiB with everything carried), has no network, kills a command after ten minutes, and hands back at most 8 files of
# 16 MiB from $OUT. Every command goes on from what the last one brought home.
#
#   here, once:   recipes/gpu.sh pack RECIPE_OUT [--kbit 24] [--no-audio]   stages 0 to 2 of the recipe -> .gpu/data.tar
#                 recipes/gpu.sh wheels                                    what the machine's Python lacks -> .gpu/wheels
#   there:        recipes/gpu.sh train STAGE MINUTES CONFIG [SECTION.KEY=VALUE ...]   (carry .gpu; STAGE: t2s, vocoder or draft)
#   here, after:  recipes/gpu.sh collect FILES STAGE RECIPE_OUT            FILES: where $OUT came back
#   there:        recipes/gpu.sh bench                                    tests/gpu and benchmark/rounds.py, in six minutes
#   then again `train`, or on with recipes/default_voice/run.sh --from 3: the stage finds its checkpoint and finishes it.
#
# There it needs Python 3.12, torch 2.11, numpy, safetensors, tqdm; the vocoder soundfile, soxr and pyworld as well (wheels).
# `bench` needs pytest and scipy beside torch. PYTHON names the interpreter, DEVICE the device (default cuda; cpu rehearses), GPU_DIR the parcel's folder (default .gpu).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
python=${PYTHON:-python3}
parcel=${GPU_DIR:-$root/.gpu}
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
usage() { sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2; }
(($#)) || usage
action=$1; shift
case $action in
  pack)
    (($#)) || usage
    "$python" "$here/gpu.py" pack "$1" "$parcel" "${@:2}"
    ;;
  wheels)
    platforms=()
    for p in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux_2_34 manylinux_2_31 manylinux_2_24 manylinux1; do
      platforms+=(--platform "${p}_x86_64")
    done
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp "${platforms[@]}" \
      --dest "$parcel/wheels" soundfile cffi pycparser soxr pyworld setuptools==80.9.0
    du -sh "$parcel/wheels"
    ;;
  train)
    (($# >= 3)) || usage
    stage=$1 minutes=$2 config=$3; shift 3
    : "${OUT:?OUT must name the folder whose files come back}"
    work=${WORK:-/tmp/spear_spec_recipe}
    if compgen -G "$parcel/wheels/*.whl" >/dev/null; then
      "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site "$parcel"/wheels/*.whl
      export PYTHONPATH=$PYTHONPATH:/tmp/site
    fi
    [[ -d $work/prepared ]] || "$python" "$here/gpu.py" unpack "$parcel" "$work"
    [[ -d $parcel/state/t2s_export ]] && mkdir -p "$work/t2s" && cp -r "$parcel/state/t2s_export" "$work/t2s/export"
    [[ -f $work/$stage/checkpoint.pt ]] || "$python" "$here/gpu.py" unshard "$parcel/state" "$work/$stage/checkpoint.pt" --name "$stage"
    rm -f "$work"/done.*."$stage".json
    # TERM is the trainers' sign to write a checkpoint; a trainer that does not listen has one from a few hundred steps ago
    timeout --signal=TERM --kill-after=30 "$((minutes * 60))" "$python" -m spear_spec.training.recipe.run "$config" --stages "$stage" \
      --set "out=$work" "prepare.corpora=[]" "device=${DEVICE:-cuda}" "vocoder.workers=${WORKERS:-$(nproc)}" progress=false "$@" || echo "stopped with status $?"
    "$python" "$here/gpu.py" shard "$work/$stage/checkpoint.pt" "$OUT" --name "$stage"
    tail -n 200 "$work/$stage/train.log" >"$OUT/$stage.log"
    tail -n 3 "$OUT/$stage.log"
    ;;
  collect)
    (($# >= 3)) || usage
    files=$1 stage=$2 recipe=$3
    mkdir -p "$parcel/state"
    rm -f "$parcel/state/$stage"-*.safetensors
    cp "$files/$stage"-*.safetensors "$parcel/state/"
    [[ -f $files/$stage.log ]] && cat "$files/$stage.log" >>"$parcel/$stage.log"
    "$python" "$here/gpu.py" unshard "$parcel/state" "$recipe/$stage/checkpoint.pt" --name "$stage"
    if [[ -d $recipe/t2s/export ]]; then rm -rf "$parcel/state/t2s_export"; cp -r "$recipe/t2s/export" "$parcel/state/t2s_export"; fi
    echo "collected: $recipe/$stage/checkpoint.pt"
    ;;
  bench)
    (($#)) && usage
    : "${OUT:?OUT must name the folder whose files come back}"
    device=${DEVICE:-cuda} status=0 patience=1 small=(--minutes 2.4)
    [[ $device == cpu ]] && patience=6 small=(--minutes 30 --tiny)  # a rehearsal, on a machine that may be busy
    check() { # SECONDS WHICH: tests of tests/gpu
      timeout "$((patience * $1))" "$python" -m pytest -q -p no:cacheprovider "$root/tests/gpu" -k "$2" 2>&1 | tee -a "$OUT/tests.log" || status=1
    }
    check 110 "not verify and not law"
    timeout "$((patience * 160))" "$python" "$here/benchmark/rounds.py" --out "$OUT/rounds.jsonl" --device "$device" "${small[@]}" || status=1
    check 85 "verify or law"
    exit "$status"
    ;;
  *) usage ;;
esac
