#!/usr/bin/env bash
# Makes a Debian 12 machine ready: packages, kernel headers where BCC looks for them, a virtualenv with Ambit in it.
# Safe to run again: what is there already is left alone, and then it takes no time. Arguments are more Debian packages.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
fail() { printf 'ambit: %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "set-up needs root: it installs packages and later makes network namespaces and loads eBPF"
command -v apt-get >/dev/null || fail "set-up knows Debian only (no apt-get here): see README.md for what it would install"

# python3-bpfcc is BCC for /usr/bin/python3; nftables gives Services to pods outside the mesh; openssl and curl are peers
# in tests and in the demo; gcc and Python's headers compile the byte path.
packages=(python3-bpfcc python3-venv python3-dev gcc libc6-dev iproute2 nftables openssl curl "$@")
release=$(uname -r)
headers=/lib/modules/$release/build

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
install() {
  say "installing Debian packages: $*"
  [ -n "${apt_updated:-}" ] || { apt-get update -qq; apt_updated=1; }
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
[ ${#missing[@]} = 0 ] || install "${missing[@]}"

if [ ! -e "$headers/include" ]; then
  # The programs use stable UAPI structs only, so headers of another kernel serve where this one has none of its own.
  apt-get update -qq; apt_updated=1
  if apt-cache show "linux-headers-$release" >/dev/null 2>&1; then
    install "linux-headers-$release"
  else
    install "linux-headers-$(dpkg --print-architecture)"
    build=$(find /usr/src -maxdepth 1 -name "linux-headers-*-$(dpkg --print-architecture)" | sort -V | tail -n 1)
    [ -n "$build" ] || fail "no kernel headers found under /usr/src for BCC to compile with"
    say "this kernel ($release) has no headers package: linking $build"
    mkdir -p "/lib/modules/$release"
    ln -sfn "$build" "$headers"
    ln -sfn "${build%-*}-common" "/lib/modules/$release/source"
  fi
fi

# Debian's own Python: BCC's bindings match it, and it is built with PGO and LTO (10-15 % faster than a plain build).
[ -x .venv/bin/python ] || { say "making the virtualenv .venv"; /usr/bin/python3 -m venv .venv; }
if [ ! -e .venv/ready ] || [ pyproject.toml -nt .venv/ready ]; then
  say "installing Python packages into .venv"
  .venv/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]' || fail "pip could not install the Python packages"
  touch .venv/ready
fi

.venv/bin/python -m deploy.compile || say "going on all the same: workers are only slower without it"
