#!/usr/bin/env bash
# cluster_json.sh --hosts H --ranks R [--rate 200mbit] [--leaf-hosts N --uplink RATE]: the cluster of up.sh with the same
# options and R ranks a host, as a cluster file for `topomoe --cluster`, on stdout.
#
# A rank is a GPU. Ranks of a host meet in one nvswitch-like plane, since any of them copies to any other as fast, and
# share the host's one NIC. Rates of the NIC and the uplinks are raw, as shaped; those of memory and arithmetic are
# assumed above what a core of ours does, so that no bound is beaten: `topomoe profile` measures what there is.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"

hosts=2 ranks=8 rate=200mbit leaf_hosts=0 uplink=none
while [ $# -gt 0 ]; do
  case $1 in
    --hosts) hosts=$2 ;;
    --ranks) ranks=$2 ;;
    --rate) rate=$2 ;;
    --leaf-hosts) leaf_hosts=$2 ;;
    --uplink) uplink=$2 ;;
    *) fail "$1: unknown; see the head of the script" ;;
  esac
  shift 2 || fail "$1: value missing"
done

# RATE: GB/s
GBps() {
  case $1 in
    *mbit) awk -v r="${1%mbit}" 'BEGIN { printf "%.9g", r / 8000 }' ;;
    *gbit) awk -v r="${1%gbit}" 'BEGIN { printf "%.9g", r / 8 }' ;;
    *) fail "rate $1: as 200mbit or 1gbit" ;;
  esac
}

name=virtual-${hosts}x$ranks-$rate leaf=$hosts tree=
if [ "$leaf_hosts" != 0 ] && [ "$leaf_hosts" -lt "$hosts" ]; then
  name+=-leaves-of-$leaf_hosts-$uplink leaf=$leaf_hosts
  ratio=$(awk -v down="$(GBps "$rate")" -v n="$leaf" -v up="$(GBps "$uplink")" 'BEGIN { printf "%.9g", down * n / up }')
  tree=', "spine_count": 1, "oversubscription": '$ratio',
    "uplink": {"GBps_per_direction": '$(GBps "$uplink")', "latency_us": 50, "source": "measured: tc shapes it so"}'
fi
cat <<END
{
  "schema": "topomoe.cluster/1",
  "name": "$name",
  "source": "tests/cluster/cluster_json.sh",
  "hosts": [{"template": "namespace", "count": $hosts}],
  "hosts_per_domain": 1,
  "fabric": {"hosts_per_leaf": $leaf$tree},
  "templates": [{
    "name": "namespace",
    "gpu": {"name": "rank of a virtual cluster", "memory_GiB": 8, "hbm_GBps": 20, "bf16_TFLOPps": 0.2, "fp8_TFLOPps": 0,
      "fp32_TFLOPps": 0.2, "sms": 0, "source": "assumed: above what one core does"},
    "shape": {
      "kind": "nvswitch", "gpus": $ranks, "numa_nodes": 1, "gpus_per_pci_switch": 0, "nics": 1,
      "nvlink": {"GBps_per_direction": 20, "latency_us": 1, "source": "assumed: a copy through shared memory, above what one core does"},
      "pcie": {"GBps_per_direction": 20, "latency_us": 1, "source": "assumed: as nvlink; the way to the NIC"},
      "nic": {"GBps_per_direction": $(GBps "$rate"), "latency_us": 50, "source": "measured: tc shapes it so"}
    }
  }]
}
END
