#!/usr/bin/env bash
# Installs the chat: PocketBase, Redis, the gateway and Nginx, by Docker or (--native) as systemd services.
# Ставит чат: PocketBase, Redis, шлюз и Nginx, через Docker или (--native) как службы systemd.
#
#   install.sh                    with Docker / через Docker
#   install.sh --native           without Docker, as root / без Docker, от root
#   install.sh --uninstall        removes the services and keeps the data (with --native: the systemd services)
#                                 удаляет службы, данные остаются (вместе с --native: службы systemd)
#
#   --domain NAME       name of the site, for the certificate [default: of the first run, or the host's] / имя сайта
#   --email ADDRESS     the superuser of PocketBase [default: admin@NAME] / суперпользователь PocketBase
#   --gateway FILE      a static binary of the gateway [default: bin/konvert-gateway, else compiled] / программа шлюза
#   --pocketbase FILE   --native only: a binary of PocketBase [default: downloaded] / программа PocketBase
#   --no-start          only prepare; used by restore.sh / только подготовить; для restore.sh
#   --yes               do not ask / не спрашивать
#   --lang en|ru        language, also of later runs and of backup.sh [default: by the locale] / язык, и на будущее
#
# Running it again is safe: secrets, certificates and data stay; images and programs are renewed.
# Повторный запуск безопасен: пароли, сертификаты и данные остаются, образы и программы обновляются.
set -euo pipefail
# Programs and pages are for other users to read, whatever the caller's umask; secrets have their own below.
umask 022

deploy=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$deploy")
# shellcheck source=deploy/install/messages.sh
source "$deploy/install/messages.sh"

native=false uninstall=false yes=false no_start=false
domain="" email="" gateway="" pocketbase="" chosen_language=""
# For messages that name the command.
command_line="$0 $*"

usage() { sed -n '2,/^set -/{/^set -/d; s/^# \{0,1\}//; p;}' "${BASH_SOURCE[0]}"; }

main() {
  read_arguments "$@"
  if $native; then
    # shellcheck source=deploy/install/native.sh
    source "$deploy/install/native.sh"
  else
    # shellcheck source=deploy/install/docker.sh
    source "$deploy/install/docker.sh"
  fi
  load_language "$env_file"
  choose_names
  if $uninstall; then uninstall; else install_all; fi
}

# shellcheck disable=SC2034 # some are for native.sh
read_arguments() {
  while (($# > 0)); do
    case $1 in
      --native) native=true ;;
      --uninstall) uninstall=true ;;
      --no-start) no_start=true ;;
      --yes) yes=true ;;
      --domain) domain=${2:?$1}; shift ;;
      --email) email=${2:?$1}; shift ;;
      --gateway) gateway=${2:?$1}; shift ;;
      --pocketbase) pocketbase=$(realpath "${2:?$1}"); shift ;;
      --lang)
        case ${2:?$1} in en | ru) ;; *) fail bad_argument "$1 $2" ;; esac
        chosen_language=$2
        export LANGUAGE_OF_MESSAGES=$2
        shift
        ;;
      -h | --help) usage; exit ;;
      *) fail bad_argument "$1" ;;
    esac
    shift
  done
}

# The site's name: the argument, or the one of the first run, or the host's.
choose_names() {
  local kept=""
  if [[ -r $env_file ]]; then kept=$(sed -n 's/^SITE_DOMAIN=//p' "$env_file" | tail -n 1); fi
  [[ -n $domain ]] || domain=${kept:-$(hostname -f 2>/dev/null || hostname)}
  if [[ -z $email ]]; then
    # PocketBase accepts only addresses with a dot in the domain.
    if [[ $domain == *.* ]]; then email=admin@$domain; else email=admin@$domain.local; fi
  fi
}

need() { command -v "$1" >/dev/null || fail no_tool "$1"; }

check_memory() {
  local megabytes
  megabytes=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
  if ((megabytes < 400)); then t little_memory "$megabytes"; fi
}

# check_port PORT KEY ARGUMENT...: ends with the message KEY if another program listens on the port.
check_port() {
  if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then fail "$2" "$1" "${@:3}"; fi
}

# Asks on the terminal. Without a terminal, only --yes goes on.
confirm() {
  local answer=""
  if $yes; then return; fi
  if [[ -t 0 ]]; then
    printf '%s' "$(t go_on)"
    read -r answer
  fi
  case $answer in
    y | Y | yes | д | Д | да) ;;
    *) t stopped; exit 1 ;;
  esac
}

# find_gateway: puts a static binary into bin/konvert-gateway, unless one is there.
find_gateway() {
  local binary=$root/bin/konvert-gateway target
  mkdir -p "$root/bin"
  if [[ -n $gateway ]]; then
    if ! is_static_gateway "$gateway"; then fail wrong_binary "$gateway"; fi
    # A rename, since the old file may be running.
    install -m 755 "$gateway" "$binary.new"
    mv -f "$binary.new" "$binary"
    return
  fi
  if [[ -x $binary ]]; then
    if ! is_static_gateway "$binary"; then fail wrong_binary "$binary"; fi
    return
  fi
  t compiling
  target=$(uname -m)-unknown-linux-musl
  if command -v cargo >/dev/null && command -v musl-gcc >/dev/null && [[ -d $(rustc --print target-libdir --target "$target" 2>/dev/null) ]]; then
    "$deploy/release.sh" --binary "$binary"
  else
    compile_in_container "$binary" || fail no_binary
  fi
}

# The images have no libraries, so the binary must be static.
is_static_gateway() {
  "$1" --version >/dev/null 2>&1 && ! ldd "$1" 2>/dev/null | grep -q '=>'
}

# self_signed FOLDER: a certificate for $domain that is valid for ten years, unless the folder has one.
self_signed() {
  local folder=$1
  if [[ -e $folder/fullchain.pem ]]; then return; fi
  mkdir -p "$folder/acme"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -sha256 -days 3650 -nodes -subj "/CN=$domain" \
    -addext "subjectAltName=DNS:$domain,DNS:localhost,IP:127.0.0.1" \
    -keyout "$folder/privkey.pem" -out "$folder/fullchain.pem" 2>/dev/null
  touch "$folder/self-signed"
}

# show_password URL: once, also if the start fails afterwards.
show_password() {
  if [[ $superuser == "superuser: created" ]]; then
    t keep
    t keep_superuser "$1" "$email" "$superuser_password"
    t keep_secrets "$env_file"
  else
    t superuser_exists
  fi
}

main "$@"
