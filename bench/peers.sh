#!/usr/bin/env bash
# Installs what `bench cluster` and `bench requests` compare libring with (Debian and its descendants): etcd, redis and
# nats-server.
#
# The benchmark starts servers of its own. The services that the packages bring are not used, and would
# disturb it: where this script is what installs them, it also stops and disables them.
set -euo pipefail

missing=()
command -v etcd > /dev/null || missing+=(etcd-server)
command -v redis-server > /dev/null || missing+=(redis-server)
command -v nats-server > /dev/null || missing+=(nats-server)

if [ ${#missing[@]} -eq 0 ]; then
  echo "nothing to install"
else
  if [ "$(id -u)" -ne 0 ]; then
    echo "missing: ${missing[*]}; run this script as root to install them" >&2
    exit 1
  fi
  apt-get update
  DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"
  if [ -d /run/systemd/system ]; then
    for package in "${missing[@]}"; do
      case $package in
        etcd-server) systemctl disable --now etcd ;;
        redis-server) systemctl disable --now redis-server ;;
        nats-server) systemctl disable --now nats-server ;;
      esac
    done
  fi
fi

etcd --version | head -n 1
redis-server --version
nats-server --version
