#!/bin/sh
# headers.sh TARGET: the headers of Debian's kernel as one tree, as BCC_KERNEL_SOURCE wants it. Debian splits them in two
# packages which depend on a whole compiler; BCC brings its own and needs the include directories only.
set -eu
target=$1 work=$(mktemp -d) architecture=$(dpkg --print-architecture)
apt-get update -qq
flavour=$(apt-cache depends "linux-headers-$architecture" | sed -n 's/^ *Depends: \(linux-headers-[0-9].*\)/\1/p')
common=$(apt-cache depends "$flavour" | sed -n 's/^ *Depends: \(linux-headers-[0-9].*-common\)/\1/p')
cd "$work"
apt-get download -qq "$flavour" "$common"
for package in ./*.deb; do dpkg-deb -x "$package" "$work/tree"; done
case $architecture in amd64) kernel=x86 ;; *) kernel=$architecture ;; esac
mkdir -p "$target/arch/$kernel"
for name in "$common" "$flavour"; do
  cp -a "$work/tree/usr/src/$name/include" "$target/"
  [ ! -d "$work/tree/usr/src/$name/arch/$kernel/include" ] || cp -a "$work/tree/usr/src/$name/arch/$kernel/include" "$target/arch/$kernel/"
done
# Drivers' and sound cards' own headers: no program of ours can reach them.
cd "$target/include"
rm -rf config dt-bindings sound drm media rdma scsi ufs target video xen kunit pcmcia soc
rm -rf "$work"
