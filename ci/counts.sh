#!/usr/bin/env bash
# Counts what the hot path does, which does not depend on what else the machine does: instructions (by callgrind) of each
# operation, of sealing and opening also beyond their primitives, and what the store is asked for. Callgrind's processor
# has AES and AVX2 instructions and none for SHA-256, so that hashes count for more than they cost. Fails where a count is more
# than 5 % above the one in ci/counts.txt (15 % for what is left beyond the primitives; 20 % and 60 % on another processor than
# the figures are of, whose libraries may take other ways). What the store is asked for by many subjects depends a little on
# where their tags put them.
#
#   bash ci/counts.sh            compares
#   bash ci/counts.sh --write    writes the figures anew
set -euo pipefail
cd "$(dirname "$0")/.."

file=${COUNTS_FILE:-ci/counts.txt}
target="${CARGO_TARGET_DIR:-$PWD/target}"

if ! command -v valgrind >/dev/null && [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
    apt-get update -qq || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends valgrind >/dev/null || true
fi
if ! command -v valgrind >/dev/null; then
    echo 'skipped: valgrind is missing, and cannot be installed from here; no instruction was counted'
    exit 0
fi
if [[ $(uname -m) != x86_64 ]]; then
    echo "skipped: the figures are for x86_64, and this is $(uname -m); no instruction was counted"
    exit 0
fi

# Without debug information, and for the processor that every x86_64 machine is.
export CARGO_PROFILE_BENCH_DEBUG=0
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
binary=$(cargo bench --quiet --bench counts --no-run --message-format=json |
    sed -n 's/.*"name":"counts".*"executable":"\([^"]*\)".*/\1/p' | tail -n1)
[[ -x $binary ]] || { echo 'the bench counts was not built'; exit 1; }

processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n1)

# Instructions of a whole run.
instructions() {
    local log="$target/counts.log"
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$binary" "$@" >/dev/null 2>"$log" || { cat "$log"; exit 1; }
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$log"
}

# Of one operation into `count`: the difference between two lengths of a run, so that the start is not in it.
count_of() {
    # The start of a run varies by some 0.2 million instructions, since keys are random: the shorter the job, the more of them.
    local job=$1 n=1000 once twice
    case $job in
        open | bare-open | verify) n=10000 ;;
        seal | bare-seal | open-*) n=4000 ;;
        unlock) n=400 ;;
    esac
    once=$(instructions "$job" "$n")
    twice=$(instructions "$job" $((2 * n)))
    count=$(((twice - once) / n))
}

measure() {
    local job whole
    for job in seal open seal-xchacha open-xchacha seal-record open-record verify unlock; do
        count_of "$job"
        whole=$count
        echo "instructions.$job $whole"
        # What is left without the primitives: those would hide it.
        if [[ $job == seal || $job == open ]]; then
            count_of "bare-$job"
            echo "beyond-primitives.$job $((whole - count))"
        fi
    done
    "$binary" store 100
}

if [[ ${1:-} == --write ]]; then
    {
        echo '# Written by: bash ci/counts.sh --write. Instructions of one operation, and what one asks of the store.'
        echo "# On: $processor"
        measure
    } >"$file.new"
    mv "$file.new" "$file"
    cat "$file"
    exit 0
fi

most=0.05
if ! grep -qxF "# On: $processor" "$file"; then
    most=0.2
    echo "the figures are of another processor than $processor: 20 % more are let pass, not 5 %"
fi
measure | awk -v file="$file" -v most="$most" '
    BEGIN { while ((getline line < file) > 0) if (line !~ /^#/) { split(line, part, " "); was[part[1]] = part[2]; left++ } }
    {
        seen++
        if (!($1 in was)) { print $1 ": " $2 ", of which " file " says nothing"; bad = 1; next }
        # A difference of two counts varies more than either: by where the buffers happen to lie.
        spare = $1 ~ /^store/ ? 0.05 : $1 ~ /^beyond/ ? 3 * most : most
        if ($2 > was[$1] * (1 + spare)) { say = "more than allowed"; bad = 1 }
        else if ($2 < was[$1] * (1 - spare)) say = "less: lower the figure (bash ci/counts.sh --write)"
        else say = "as it was"
        printf "%-32s %10s, was %10s: %s\n", $1, $2, was[$1], say
    }
    END {
        if (seen != left) { print seen " figures were counted, and " file " has " left; bad = 1 }
        exit bad
    }'
