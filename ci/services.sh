#!/usr/bin/env bash
# The tests that need servers: bash ci/services.sh. It installs what is missing where it can (Debian's packages), and the
# tests start the servers themselves, on free ports, in directories of their own.
set -euo pipefail

have_postgres() {
    [[ -n "${POSTGRES_BIN:-}" ]] || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null
}

if ! have_postgres; then
    if [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null
    fi
    have_postgres || { echo 'PostgreSQL is missing: install its server, or name the folder of its programs in POSTGRES_BIN'; exit 1; }
fi

# Every test target whose name begins so needs a server.
targets=()
for file in tests/postgres*.rs; do
    targets+=(--test "$(basename "$file" .rs)")
done
cargo test --features postgres,sqlx-0_9 "${targets[@]}"

# Examples that need one start it themselves.
cargo run --release --features postgres --example migrate_table
