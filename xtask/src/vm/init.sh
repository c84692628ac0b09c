#!/bin/sh
# What a guest does. It says on the second serial line what it begins, what that said, and how it ended: lines of ours
# begin with an @. The first line is the kernel's alone, whose messages would break into these.
export PATH=/bin:/sbin:/applets HOME=/ LC_ALL=C
# Tests with container engines say that they are left out.
export COLLECTOR_ENGINES=none
# Generated frames for the loaded programs: each takes ten times as long here.
export FRAMES=20000
/sbin/busybox mount -t proc proc /proc
/sbin/busybox --install -s /applets
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
ln -s /proc/self/fd /dev/fd
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir -p /run/netns
exec >/dev/ttyS1 2>&1 </dev/null
stty -F /dev/ttyS1 -onlcr
echo "@ kernel $(uname -r)"
# Ended by the emulator at this point, where it only had to show that it boots.
[ -n "$probe" ] && poweroff -f
ip link set lo up
# The cards; nobody loads them by what the bus says.
modprobe -q virtio_pci
modprobe -q virtio_net
# /dev/net/tun is there once its module is.
modprobe -q tun

step() {
    name=$1
    shift
    echo "@ begin $name"
    "$@"
    echo "@ end $name $?"
}

# What anyone sees who starts it.
collects() {
    ip netns add try
    ip -n try link add v0 type veth peer name v1
    ip -n try addr add 10.99.0.1/24 dev v0
    ip -n try link set v1 up
    ip -n try link set v0 up
    mkfifo /tmp/said
    nsenter --net=/run/netns/try /tests/collector run --iface v0 --output json >/tmp/events 2>/tmp/said &
    # What it is attached to, and what is missing; then it may end.
    {
        head -n 2
        kill -INT $!
        cat
    } </tmp/said
    wait $!
    status=$?
    # The last event says what it hung on.
    tail -n 1 /tmp/events
    ip netns del try
    return $status
}

set --
# Arguments of the test programs, one a line.
while read -r argument; do set -- "$@" "$argument"; done </tests/arguments
cd /tests || poweroff -f
step collects collects
step selftest ./collector selftest --output json
step kernel ./kernel "$@"
step devices ./devices "$@"
step cli ./cli "$@"
echo '@ done'
poweroff -f
