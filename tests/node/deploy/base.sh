#!/usr/bin/env bash
# Makes the image that stands in for python, redis and nginx of the public registry, and for a server with systemd: a
# Debian with these packages, as a tarball for `docker import`.
#
#   base.sh FILE
set -euo pipefail

file=$1
work=$(mktemp -d /var/tmp/konvert-base.XXXXXX)
trap 'rm -rf "$work"' EXIT
# shellcheck disable=SC1091
. /etc/os-release
packages=ca-certificates,systemd,systemd-sysv,dbus,redis-server,nginx-light,openssl,curl,python3-pip,procps
debootstrap --variant=minbase --include="$packages" "${VERSION_CODENAME:-bookworm}" "$work/root" >"$work/log" 2>&1 ||
  { tail -n 20 "$work/log" >&2; exit 1; }

# The host's authorities and the settings of pip, which may name a mirror.
cp /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/ca-certificates.crt"
python3 -m pip config list 2>/dev/null | { grep -E "^global\.[a-z-]+='" || true; } | sed "s/^global\.\([a-z-]*\)='\(.*\)'$/\1 = \2/" |
  { echo "[global]"; cat; } >"$work/root/etc/pip.conf"
# As in the public images.
install -d -o 999 -g 1000 "$work/root/data"
# A server has other services; these would only cost time.
rm -rf "$work"/root/var/cache/apt "$work"/root/var/lib/apt/lists "$work"/root/usr/share/{doc,man,locale}
rm -f "$work"/root/etc/systemd/system/*.wants/{redis-server,nginx}.service
tar -C "$work/root" --numeric-owner -cf "$file.part" .
mv "$file.part" "$file"
