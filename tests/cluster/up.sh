#!/usr/bin/env bash
# A cluster on this machine: hosts are network namespaces, with shaped NICs between them.
#
#   up.sh [--hosts 2] [--rails 1] [--rate 200mbit|none] [--burst BYTES] [--queue 32mb] [--mpu BYTES]
#         [--leaf-hosts N --uplink RATE] -- command ...
#
# Runs the command beside the hosts and returns its exit code; `-- bash` gives a shell. In it, mpirun.sh starts MPI jobs
# over all hosts, host.sh something on one, nic_bytes.sh reads the counters of the NICs. What the network can carry at
# best is printed on stderr, and kept in $CLUSTER/ceiling.
#
# The cluster lives in a mount and a PID namespace of its own, and so ends with the command, whatever ends it: the
# kernel kills what still runs and forgets the network. There is nothing to take down, also after kill -9, and several
# clusters do not meet.
#
# Host i has a NIC a rail, eth0, eth1, ...: on rail r 10.(50+r).0.(i+1), a veth to its leaf's bridge, a token bucket on
# either end (out and in). Rails are fabrics of their own, as in a rail-only network; mpirun.sh pins ranks to them. Each
# host also has mgmt, 10.49.0.(i+1), unshaped, on which only launchers talk. All bridges are in one more namespace,
# `switch`. With --leaf-hosts hosts hang on leaves of so many, whose uplinks to a spine a rail are shaped to --uplink.
# --mpu makes every packet cost at least so many bytes of tokens: a cost a message, and an acknowledgement's.
# The default burst is about half a millisecond of the rate, as a NIC's own buffer, at least two packets.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"

hosts=2 rails=1 rate=200mbit burst='' queue=32mb mpu='' leaf_hosts=0 uplink=none

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      --hosts) hosts=$2 ;;
      --rails) rails=$2 ;;
      --rate) rate=$2 ;;
      --burst) burst=$2 ;;
      --queue) queue=$2 ;;
      --mpu) mpu=$2 ;;
      --leaf-hosts) leaf_hosts=$2 ;;
      --uplink) uplink=$2 ;;
      --) shift && command=("$@") && return ;;
      *) fail "$1: unknown; see the head of the script" ;;
    esac
    shift 2 || fail "$1: value missing"
  done
  fail "no command: up.sh [options] -- command ..."
}

# Segmentation offload hands over super-packets; with headers they must stay within the bucket.
super_packet() { echo $((burst > 20000 ? 18000 : burst - 2000)); }

# NETNS DEVICE RATE
shape() {
  ip -n "$1" link set "$2" gso_max_size "$(super_packet)"
  [ "$3" = none ] || tc -n "$1" qdisc replace dev "$2" root tbf rate "$3" burst "$burst" limit "$queue" ${mpu:+mpu "$mpu"}
}

# NAME: a bridge in the switch
bridge() {
  ip -n switch link add "$1" type bridge
  ip -n switch link set "$1" up
}

# RAIL LEAF: its uplink to the rail's spine
uplink_of() {
  ip -n switch link add "up$1.$2" type veth peer name "down$1.$2"
  ip -n switch link set "up$1.$2" master "leaf$1.$2" up
  ip -n switch link set "down$1.$2" master "spine$1" up
  shape switch "up$1.$2" "$uplink"
  shape switch "down$1.$2" "$uplink"
}

# HOST NIC PORT BRIDGE ADDRESS: a cable from a host's NIC to a bridge's port
cable() {
  ip -n switch link add "$3" type veth peer name "$2" netns "$1"
  ip -n switch link set "$3" master "$4" up
  ip -n "$1" addr add "$5/24" dev "$2"
  ip -n "$1" link set "$2" up
}

build() {
  local i r leaves=1
  ip netns add switch
  bridge mgmt
  [ "$leaf_hosts" = 0 ] || leaves=$(((hosts + leaf_hosts - 1) / leaf_hosts))
  for ((r = 0; r < rails; r++)); do
    for ((i = 0; i < leaves; i++)); do bridge "leaf$r.$i"; done
    [ "$leaves" -gt 1 ] || continue
    bridge "spine$r"
    for ((i = 0; i < leaves; i++)); do uplink_of "$r" "$i"; done
  done
  for ((i = 0; i < hosts; i++)); do
    local h=h$i leaf=$((leaf_hosts > 0 ? i / leaf_hosts : 0))
    ip netns add "$h"
    ip -n "$h" link set lo up
    # Idle connections keep their window: a pause between two repetitions is not a new start.
    ip netns exec "$h" sysctl -qw net.ipv4.tcp_slow_start_after_idle=0 net.ipv4.tcp_no_metrics_save=1 \
      net.ipv6.conf.all.disable_ipv6=1
    cable "$h" mgmt "m$i" mgmt "10.49.0.$((i + 1))"
    for ((r = 0; r < rails; r++)); do
      cable "$h" "eth$r" "p$r.$i" "leaf$r.$leaf" "10.$((50 + r)).0.$((i + 1))"
      shape "$h" "eth$r" "$rate"
      shape switch "p$r.$i" "$rate"
    done
    echo "10.49.0.$((i + 1)) $h" >>"$CLUSTER/hosts"
    mkdir "$CLUSTER/$h"
  done
  echo "$hosts" >"$CLUSTER/count"
  echo "$rails" >"$CLUSTER/rails"
}

# What the network can carry at best: payload is 1448 of the 1514 bytes of a full packet (TCP with time stamps, IPv4,
# Ethernet). Of an uplink: what hosts of one leaf together may send to others. key=value lines, then words on stderr.
ceiling() {
  awk -v hosts="$hosts" -v rails="$rails" -v rate="$(GBps_of "$rate")" -v mpu="$mpu" -v leaf="$leaf_hosts" \
    -v uplink="$(GBps_of "$uplink")" -v file="$CLUSTER/ceiling" 'BEGIN {
    payload = 1448 / 1514
    words = hosts " hosts, " rails " NIC" (rails > 1 ? "s" : "") " each"
    print "hosts=" hosts "\nrails=" rails > file
    if (rate > 0) {
      printf "rate_GBps=%.9g\npayload_GBps=%.9g\n", rate, rate * payload > file
      words = words sprintf(": at most %.4g MB/s of payload a NIC and direction", rate * payload * 1e3)
    } else words = words ", unshaped"
    if (leaf > 0 && leaf < hosts && uplink > 0) {
      printf "leaf_hosts=%d\nuplink_payload_GBps=%.9g\noversubscription=%.9g\n", leaf, uplink * payload, leaf * rate / uplink > file
      words = words sprintf("; %d hosts a leaf, %.4g MB/s to the spine (%.3g:1)", leaf, uplink * payload * 1e3, leaf * rate / uplink)
    }
    if (mpu + 0 > 0 && rate > 0) {
      printf "packets_per_s=%.9g\n", rate * 1e9 / mpu > file
      words = words sprintf("; at most %.4g packets/s", rate * 1e9 / mpu)
    }
    print "cluster: " words > "/dev/stderr"
  }'
}

if [ "${1:-}" != --inside ]; then
  command=()
  parse "$@"
  require_cluster
  exec unshare --mount --pid --fork --kill-child=KILL --mount-proc -- "$(readlink -f "$0")" --inside "$@"
fi

shift
parse "$@"
[ -n "$burst" ] || burst=$(awk -v g="$(GBps_of "$rate")" 'BEGIN { b = 4096; while (b < 0.4e6 * g) b *= 2; print b }')
# Names of namespaces, hosts' temporary files and shared memory: gone with this mount namespace.
mkdir -p /run/netns
mount -t tmpfs none /run/netns
mkdir -p /tmp/topomoe-cluster
mount -t tmpfs none /tmp/topomoe-cluster
export CLUSTER=/tmp/topomoe-cluster
echo "127.0.0.1 localhost" >"$CLUSTER/hosts"
build
ceiling
set +e
"${command[@]}"
exit $?
