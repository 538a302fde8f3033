#!/usr/bin/env bash
# Makes a backup of the running chat: PocketBase's databases and uploads, Redis, secrets and certificates.
# Делает резервную копию работающего чата: базы и файлы PocketBase, Redis, пароли и сертификаты.
#
#   backup.sh             of the containers / контейнеров
#   backup.sh --native    of the systemd services / служб systemd
#
# PocketBase goes on meanwhile: the databases are copied by SQLite in one read transaction, and the copy is checked and
# counted before the backup counts as made. Settings, in .env or /etc/konvert/konvert.env: BACKUP_TARGET (a folder, or
# s3://BUCKET/PREFIX), BACKUP_KEEP, BACKUP_AGE_RECIPIENT or BACKUP_PASSPHRASE_FILE, BACKUP_S3_….
# PocketBase при этом работает. Настройки описаны в .env.example.
#
# By cron: 17 3 * * * root /path/to/deploy/backup.sh
set -euo pipefail
umask 077

deploy=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
native=false
# shellcheck source=deploy/install/messages.sh
source "$deploy/install/messages.sh"

usage() { sed -n '2,/^set -/{/^set -/d; /^umask/d; s/^# \{0,1\}//; p;}' "${BASH_SOURCE[0]}"; }

main() {
  case ${1:-} in
    --native) native=true ;;
    -h | --help) usage; return ;;
    "") ;;
    *) fail bad_argument "$1" ;;
  esac
  # shellcheck source=deploy/backup/stack.sh
  source "$deploy/backup/stack.sh"
  local service
  for service in pocketbase redis; do is_running "$service" || fail not_running "$service"; done

  target=$(setting BACKUP_TARGET "$deploy/backups")
  [[ $target == s3://* || $target == /* ]] || target=$deploy/$target
  folder=$target
  if [[ $target == s3://* ]]; then folder=$deploy/backups; fi
  mkdir -p "$folder"
  archive=""
  work=$(mktemp -d "$folder/.work.XXXXXX")
  snapshot=$(data_folder)/.snapshot
  trap 'finish $?' EXIT

  collect
  local name
  name=konvert-$(date -u +%Y%m%dT%H%M%SZ).tar.gz$(suffix)
  tar -C "$work" -cz . | encrypt >"$folder/$name.part"
  archive=$folder/$name
  mv "$archive.part" "$archive"
  t backup_done "$archive" "$(du -h "$archive" | cut -f1)" "$(awk '{ sum += $NF } END { print sum + 0 }' "$work/rows")"
  if [[ -z $(suffix) ]]; then t backup_plain; fi
  if [[ $target == s3://* ]]; then upload "$archive" "$name"; fi
  remove_old
}

finish() {
  local status=$1
  operate remove-snapshot "$(data_folder)" "$snapshot" >/dev/null 2>&1 || true
  rm -rf "$work" "$folder"/*.part
  if ((status != 0)) && [[ -z $archive ]]; then t backup_failed >&2; fi
}

# Redis first: after a restore, PocketBase's outbox is then never behind the positions that Redis knows, and the
# gateway publishes the rows in between.
collect() {
  mkdir "$work/pb_data" "$work/config"
  redis_snapshot "$work/redis.rdb"
  [[ $(head -c 5 "$work/redis.rdb") == REDIS ]]
  operate remove-snapshot "$(data_folder)" "$snapshot"
  operate snapshot "$(data_folder)" "$snapshot"
  fetch "$snapshot/data.db" "$work/pb_data/data.db"
  fetch "$snapshot/auxiliary.db" "$work/pb_data/auxiliary.db"
  # Uploads never change, so a copy after the databases has all files that the databases name.
  fetch_uploads "$work/pb_data/storage"
  operate rows "$snapshot" >"$work/rows.log" 2>&1 || { cat "$work/rows.log" >&2; return 1; }
  rows_of "$work/rows.log" >"$work/rows"
  rm "$work/rows.log"
  [[ -s $work/rows ]]
  local file
  for file in "${config_files[@]}"; do
    if [[ -e $file ]]; then cp -rp "$file" "$work/config/"; fi
  done
  (cd "$work" && find . -type f -print0 | sort -z | xargs -0 sha256sum) >"$work.sums"
  mv "$work.sums" "$work/SHA256SUMS"
}

suffix() {
  if [[ -n $(setting BACKUP_AGE_RECIPIENT "") ]]; then echo .age
  elif [[ -n $(setting BACKUP_PASSPHRASE_FILE "") ]]; then echo .enc; fi
}

encrypt() {
  case $(suffix) in
    .age) age --encrypt --recipient "$(setting BACKUP_AGE_RECIPIENT "")" ;;
    .enc) openssl enc -aes-256-cbc -pbkdf2 -iter 600000 -salt -pass "file:$(setting BACKUP_PASSPHRASE_FILE "")" ;;
    *) cat ;;
  esac
}

# The key goes through a configuration on standard input, since arguments are visible to other users.
upload() {
  local place=${target#s3://} endpoint
  endpoint=$(setting BACKUP_S3_ENDPOINT "")
  printf 'user = "%s:%s"\n' "$(setting BACKUP_S3_ACCESS_KEY "")" "$(setting BACKUP_S3_SECRET_KEY "")" |
    curl --config - --fail --silent --show-error --aws-sigv4 "aws:amz:$(setting BACKUP_S3_REGION us-east-1):s3" \
      --upload-file "$1" "${endpoint%/}/${place%/}/$2" || fail upload_failed "$2" "$target" "$folder"
}

# Keeps the newest BACKUP_KEEP files of the folder. In a bucket, a lifecycle rule of the storage does this.
remove_old() {
  local keep old
  keep=$(setting BACKUP_KEEP 14)
  find "$folder" -maxdepth 1 -name 'konvert-*.tar.gz*' -printf '%f\n' | sort -r | tail -n "+$((keep + 1))" |
    while read -r old; do
      rm "$folder/$old"
      t removed_old "$old"
    done
}

main "$@"
