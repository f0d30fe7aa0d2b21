#!/usr/bin/env bash
# What only a card can show, in under eight minutes and without a network: the tests that need a card, a round beside a
# Trainer's and the ceiling, synthesis end to end, and a run that goes on on another device.
#
#   benchmarks/on_a_card.sh [--dry-run] [OUT]
#
# OUT (benchmarks/results/card) gets a JSON file for each step as soon as it is done, and steps.tsv: step, exit code
# (124: its time was over), seconds. --dry-run takes the same steps with tiny sizes on the CPU. PYTHON names another
# interpreter. Exit code: 0 when all steps passed, 1 when one failed, 2 where there is no CUDA device.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python}
dry=()
if [ "${1:-}" = --dry-run ]; then
    dry=(--dry-run)
    shift
fi
if [ $# -gt 1 ] || [[ "${1:-}" == -* ]]; then
    echo "usage: $0 [--dry-run] [OUT]" >&2
    exit 1
fi
if ! command -v "$python" > /dev/null; then
    echo "$python is not there: name an interpreter by the variable PYTHON" >&2
    exit 1
fi
out=${1:-$root/benchmarks/results/card}
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)

export PYTHONPATH="$root:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=false

failed=0
: > "$out/steps.tsv"

take() { # step, most seconds
    local started=$SECONDS code
    rm -f "$out/$1.json"
    timeout --kill-after=5 "$2" "$python" -m sage_bench.card "$1" --out "$out" "${dry[@]+"${dry[@]}"}"
    code=$?
    printf '%s\t%s\t%s\n' "$1" "$code" "$((SECONDS - started))" >> "$out/steps.tsv"
    [ "$code" -eq 124 ] && echo "$1: not done within $2 s" >&2
    [ "$code" -ne 0 ] && failed=1
    return "$code"
}

take probe 40
if [ $? -eq 2 ]; then
    rm -f "$out/steps.tsv"
    rmdir "$out" 2> /dev/null
    exit 2
fi
take tests 115
take distill 165
take synthesis 75
take resume 75
exit "$failed"
