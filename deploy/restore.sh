#!/usr/bin/env bash
# Restores a backup of backup.sh into an installation without data, checks it, and starts the chat.
# Восстанавливает копию, сделанную backup.sh, в пустую установку, проверяет её и запускает чат.
#
#   restore.sh ARCHIVE             into containers / в контейнеры
#   restore.sh --native ARCHIVE    into systemd services / в службы systemd
#
#   --domain NAME, --email ADDRESS, --gateway FILE, --pocketbase FILE, --lang en|ru    as for install.sh / как у install.sh
#
# Existing data are never overwritten. Secrets and certificates of the backup are used where none exist. For an encrypted
# backup: BACKUP_AGE_IDENTITY_FILE, or BACKUP_PASSPHRASE_FILE.
# Имеющиеся данные не перезаписываются.
set -euo pipefail
umask 077

deploy=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/install/messages.sh
source "$deploy/install/messages.sh"

native=false archive="" options=()
usage() { sed -n '2,/^set -/{/^set -/d; s/^# \{0,1\}//; p;}' "${BASH_SOURCE[0]}"; }

main() {
  while (($# > 0)); do
    case $1 in
      --native) native=true; options+=(--native) ;;
      --lang) export LANGUAGE_OF_MESSAGES=${2:?$1}; options+=("$1" "$2"); shift ;;
      --domain | --email | --gateway | --pocketbase) options+=("$1" "${2:?$1}"); shift ;;
      -h | --help) usage; return ;;
      -*) fail bad_argument "$1" ;;
      *) archive=$1 ;;
    esac
    shift
  done
  [[ -n $archive ]] || { usage; exit 2; }
  # shellcheck source=deploy/backup/stack.sh
  source "$deploy/backup/stack.sh"
  [[ -f $archive ]] || fail no_archive "$archive"

  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  unpack
  # Before anything is written, built or replaced.
  need_empty
  place_config
  load_language "$env_file"
  "$deploy/install.sh" "${options[@]}" --yes --no-start
  if ! $native; then
    created=$(compose create --no-recreate pocketbase redis 2>&1) || { echo "$created" >&2; fail no_containers "$env_file"; }
  fi
  need_empty
  if $native; then load_native; else load_docker; fi
  check_rows
  t restored "$archive" "$(awk '{ sum += $NF } END { print sum + 0 }' "$work/rows")" "$(wc -l <"$work/rows")"
  "$deploy/install.sh" "${options[@]}" --yes
}

unpack() {
  case $archive in
    *.age) age --decrypt --identity "$(setting BACKUP_AGE_IDENTITY_FILE /nonexistent)" "$archive" >"$work.tar.gz" ||
      fail cannot_decrypt ;;
    *.enc) openssl enc -d -aes-256-cbc -pbkdf2 -iter 600000 -pass "file:$(setting BACKUP_PASSPHRASE_FILE /nonexistent)" \
      -in "$archive" -out "$work.tar.gz" 2>/dev/null || fail cannot_decrypt ;;
    *) cp "$archive" "$work.tar.gz" ;;
  esac
  tar -C "$work" -xzf "$work.tar.gz" || { rm -f "$work.tar.gz"; fail damaged; }
  rm -f "$work.tar.gz"
  (cd "$work" && sha256sum --check --quiet SHA256SUMS) || fail damaged
}

# Secrets and certificates of the backup, where none exist.
place_config() {
  local file name
  for file in "${config_files[@]}"; do
    name=$(basename "$file")
    [[ -e $work/config/$name ]] || continue
    # The installation makes an empty folder for the operator's files.
    if [[ -d $file ]]; then rmdir "$file" 2>/dev/null || true; fi
    if [[ -e $file ]]; then
      if ! diff -rq "$work/config/$name" "$file" >/dev/null 2>&1; then t config_kept "$file"; fi
    else
      mkdir -p "$(dirname "$file")"
      cp -rp "$work/config/$name" "$file"
    fi
  done
}

# need_empty: ends if the installation holds data.
need_empty() {
  local project volume settings=$env_file
  if $native; then
    if [[ -e $native_data/pocketbase/pb_data/data.db ]]; then
      fail not_empty "$native_data/pocketbase/pb_data" "systemctl stop konvert-pocketbase; mv …"
    fi
    return
  fi
  # Without settings, those of the backup will be used.
  if [[ ! -e $settings ]]; then settings=$work/config/.env; fi
  project=$(env_file=$settings setting COMPOSE_PROJECT_NAME konvert)
  volume=${project}_pocketbase
  if holds_data "$volume"; then
    fail not_empty_volume "$volume" "$deploy/install.sh --uninstall; docker volume rm $volume ${project}_redis"
  fi
}

# holds_data VOLUME: looks for PocketBase's database through a container that is never started, of any image. Without an
# image there was no installation.
holds_data() {
  local images container found=1
  docker volume inspect "$1" >/dev/null 2>&1 || return 1
  images=$(docker image ls --quiet)
  [[ -n $images ]] || return 1
  container=$(docker create --volume "$1:/konvert-data:ro,nocopy" "${images%%$'\n'*}" none) || exit 1
  if docker cp "$container:/konvert-data/data.db" - >/dev/null 2>&1; then found=0; fi
  docker rm "$container" >/dev/null
  return "$found"
}

# The owners are those of the tar headers. An RDB file is a valid append-only file, which Redis converts at its start.
# With appendonly on, Redis does not read dump.rdb.
load_docker() {
  tar -C "$work/pb_data" --owner=10001 --group=10001 --numeric-owner -c . |
    docker cp - "$(container pocketbase):/pb/pb_data"
  mv "$work/redis.rdb" "$work/appendonly.aof"
  tar -C "$work" --owner=999 --group=1000 --numeric-owner -c appendonly.aof |
    docker cp - "$(container redis):/data"
}

load_native() {
  systemctl stop konvert-gateway.socket konvert-gateway konvert-redis konvert-pocketbase 2>/dev/null || true
  mkdir -p "$native_data/pocketbase/pb_data"
  cp -r "$work/pb_data/." "$native_data/pocketbase/pb_data/"
  if [[ ! -e $native_data/redis/appendonlydir ]]; then cp "$work/redis.rdb" "$native_data/redis/appendonly.aof"; fi
  chown -R konvert:konvert "$native_data"
}

check_rows() {
  if $native; then
    operate rows "$(data_folder)"
  else
    compose run --rm --no-deps -T pocketbase rows --dir=/pb/pb_data --hooksDir=/operator --migrationsDir=/nonexistent \
      "${operator[@]}"
  fi >"$work/rows.log" 2>&1 || { cat "$work/rows.log" >&2; fail rows_differ; }
  rows_of "$work/rows.log" >"$work/rows.now"
  diff "$work/rows" "$work/rows.now" >&2 || fail rows_differ
}

main "$@"
