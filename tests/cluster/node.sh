# Process 1 of a node, in new mount, process, cgroup, host name and network namespaces: makes the file system that a real
# host would have, then waits for ever. Arguments: STATE PAUSE NAME {KIND OPTIONS PATH}... of the cgroup hierarchies.
set -eu
state=$1 pause=$2 name=$3
shift 3
hostname "$name"
mount -t proc proc /proc

# What tests of the machine mount there would live on, seen by nobody, for as long as this node does.
awk '$2 ~ "^/(run|sys)(/|$)" { print $2 }' /proc/mounts | sort -r | xargs -r umount -l
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
[ "$1" = cgroup2 ] && [ "$3" = /sys/fs/cgroup ] || mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
while [ $# -gt 0 ]; do
    mkdir -p "$3"
    mount -t "$1" ${2:+-o "$2"} "$1" "$3"
    shift 3
done

# What the node writes where a host keeps its own files goes to the node's state directory.
for directory in etc opt var/lib var/log; do
    mkdir -p "$state/changed/$directory" "$state/work/$directory"
    mount -t overlay overlay -o "lowerdir=/$directory,upperdir=$state/changed/$directory,workdir=$state/work/$directory" "/$directory"
done
# Images are overlays themselves, which the kernel does not stack on one; kubelet asks for the free space of its disk; and
# what a local mesh of the machine keeps is no business of a node.
for directory in var/lib/containerd var/lib/kubelet var/lib/ambit; do
    mkdir -p "$state/plain/$directory" "/$directory"
    mount --bind "$state/plain/$directory" "/$directory"
done
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock

# Volumes that pods mount reach other pods ("Bidirectional") and never the machine, whose mounts are not shared with us.
mount --make-rshared /
: > "$state/ready"
exec "$pause"
