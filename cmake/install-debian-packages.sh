#!/usr/bin/env bash
# Installs what cmake/debian-packages.txt lists for the purposes given (build, optional, test) and is not here
# yet. Does nothing, apt update included, when all is here. Elsewhere than on Debian it only says what is needed.
set -euo pipefail
list="$(dirname "${BASH_SOURCE[0]}")/debian-packages.txt"

missing=()
while read -r package purpose; do
  case " $* " in *" ${purpose:-none} "*) ;; *) continue ;; esac
  if ! command -v dpkg > /dev/null; then missing+=("$package")
  elif ! dpkg -s "$package" 2> /dev/null | grep -q '^Status: install ok installed'; then missing+=("$package")
  fi
done < <(grep -v '^#' "$list")
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get > /dev/null; then
  echo "topomoe: no apt-get here; please install what these Debian packages hold: ${missing[*]}" >&2
  exit 0
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo > /dev/null || { echo "topomoe: packages are missing and there is no sudo; as root: apt-get install ${missing[*]}" >&2; exit 3; }
  as_root=(sudo)
fi
echo "topomoe: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq >&2
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
