#!/usr/bin/env bash
# host.sh hN command ...: the command on a host of the cluster around us (up.sh), as on a machine of its own: network,
# name, shared memory, processes. `host.sh --line hN ...` joins the rest to one line for a shell, as ssh does: mpirun calls
# it in place of ssh.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
[ -n "${CLUSTER:-}" ] || fail "no cluster around: run this under up.sh"

if [ "$1" = --inside ]; then
  host=$2
  shift 2
  hostname "$host"
  mount -t tmpfs none /dev/shm
  mount --bind "$CLUSTER/hosts" /etc/hosts
  export TMPDIR=$CLUSTER/$host
  exec "$@"
fi

line=''
while [[ $1 == -* ]]; do
  [ "$1" != --line ] || line=1
  shift
done
host=$1
shift
[ -z "$line" ] || set -- sh -c "$*"
exec nsenter --net="/run/netns/$host" -- unshare --uts --ipc --mount --pid --fork --kill-child=KILL --mount-proc -- \
  "$(readlink -f "$0")" --inside "$host" "$@"
