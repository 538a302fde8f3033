#!/usr/bin/env bash
# Makes the image that stands in for python, redis and nginx of the public registry, and for a server with systemd: a
# Debian with these packages, as a tarball for `docker import`.
#
#   base.sh FILE
#
# mmdebstrap takes half of debootstrap's CPU time.
set -euo pipefail

file=$1
work=$(mktemp -d /var/tmp/konvert-base.XXXXXX)
trap 'rm -rf "$work"' EXIT
# shellcheck disable=SC1091
. /etc/os-release
packages=ca-certificates,systemd,systemd-sysv,dbus,redis-server,nginx-light,openssl,curl,python3,procps
mmdebstrap --quiet --mode=root --variant=essential --include="$packages" --dpkgopt=force-unsafe-io \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --aptopt='Acquire::Languages "none"' \
  "${VERSION_CODENAME:-bookworm}" "$work/root" >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }

# Without the dozens of packages that Debian's pip needs.
python3 -m pip --disable-pip-version-check --quiet install --root-user-action=ignore --no-compile --no-deps \
  --target "$work/root/usr/lib/python3/dist-packages" pip==26.3
# The host's authorities and the settings of pip, which may name a mirror.
cp /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/ca-certificates.crt"
python3 -m pip config list 2>/dev/null | { grep -E "^global\.[a-z-]+='" || true; } | sed "s/^global\.\([a-z-]*\)='\(.*\)'$/\1 = \2/" |
  { echo "[global]"; cat; } >"$work/root/etc/pip.conf"
# As in the public images.
install -d -o 999 -g 1000 "$work/root/data"
# A server has other services; these would only cost time.
rm -f "$work"/root/etc/systemd/system/*.wants/{redis-server,nginx}.service
rm -rf "$work"/root/usr/share/{i18n,info,lintian,zoneinfo} "$work"/root/usr/lib/*-linux-gnu/{gconv,perl-base/unicore}
tar -C "$work/root" --numeric-owner -cf "$file.part" .
mv "$file.part" "$file"
