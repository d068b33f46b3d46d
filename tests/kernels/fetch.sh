#!/usr/bin/env bash
# Puts what the tests of this folder need where they look for it: the emulator on this machine, and Debian's own kernels
# unpacked (never installed) below build/kernels. Safe to run again: what is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")/../.."
place=$PWD/build/kernels
mkdir -p "$place"
trap 'rm -rf "$place"/apt-* "$place"/*.new' EXIT

command -v qemu-system-x86_64 >/dev/null || {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-system-x86 >/dev/null
}

# Each release of Debian gets an apt directory of its own, so that this machine's package lists stay as they are.
options() { # release: the words that make apt use its directory
  local apt=$place/apt-$1
  echo "-o Dir::Etc::SourceList=$apt/sources.list -o Dir::Etc::SourceParts=/dev/null" \
    "-o Dir::State::Lists=$apt/lists -o Dir::Cache=$apt/cache -o APT::Sandbox::User=root"
}

know() { # release: its package lists, from the mirrors that this machine uses
  local apt=$place/apt-$1 mirror suite
  [ ! -d "$apt" ] || return 0
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
  for mirror in $(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | sort -u); do
    case $mirror in *security*) suite=$1-security ;; *) suite=$1 ;; esac
    # An old release gets no more updates, and then its lists look stale; signatures are checked all the same.
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg check-valid-until=no] $mirror $suite main"
  done >"$apt/sources.list"
  apt-get -qq $(options "$1") update
}

unpack() { # release, package, directory
  know "$1"
  rm -rf "$3.new" && mkdir "$3.new"
  (cd "$3.new" && apt-get -qq $(options "$1") download "$2" && dpkg-deb -x ./*.deb . && rm -f ./*.deb)
}

kernel() { # release: the kernel that it has now, with an index of its modules
  local directory=$place/$1 package
  [ ! -d "$directory" ] || return 0
  know "$1"
  package=$(apt-cache $(options "$1") depends linux-image-amd64 | awk '$1 == "Depends:" {print $2}')
  echo "==> unpacking the kernel of Debian $1 below build/kernels: $package"
  unpack "$1" "$package" "$directory"
  /usr/sbin/depmod -b "$directory.new" "${package#linux-image-}"
  mv "$directory.new" "$directory"
}

kernel bookworm # the oldest that Ambit promises to work on
kernel bullseye # one that is too old, which must be told so in words
[ -d "$place/busybox" ] || { unpack bookworm busybox-static "$place/busybox" && mv "$place/busybox.new" "$place/busybox"; }
