# shellcheck shell=bash disable=SC2154,SC2034 # variables of, and for, the caller
# Access to the running installation for backup.sh and restore.sh: the same functions for Docker and for --native.
# The caller sets $deploy and $native.

if $native; then
  env_file=/etc/konvert/konvert.env
  config_files=(/etc/konvert/konvert.env /etc/konvert/tls /etc/konvert/local)
else
  env_file=$deploy/.env
  config_files=("$deploy/.env" "$deploy/tls" "$deploy/nginx/local" "$deploy/compose.override.yaml")
fi
operator=(--automigrate=false)
native_data=/var/lib/konvert
native_programs=/usr/local/lib/konvert

# shellcheck source=deploy/install/compose.sh
source "$deploy/install/compose.sh"
load_language "$env_file"

# setting NAME DEFAULT: a variable of the environment, or else of the installation's file.
setting() {
  local line=""
  if [[ -n ${!1:-} ]]; then echo "${!1}"; return; fi
  if [[ -r $env_file ]]; then line=$(grep -E "^$1=" "$env_file" | tail -n 1 || true); fi
  line=${line#*=}
  echo "${line:-$2}"
}

container() { compose ps --all --quiet "$1" 2>/dev/null | head -n 1; }

# operate COMMAND DATA ARGUMENT...: a command of deploy/operator on a data folder of PocketBase. With Docker, paths are
# those inside the running container.
operate() {
  local command=$1 folder=$2
  shift 2
  if $native; then
    setpriv --reuid=konvert --regid=konvert --clear-groups -- "$native_programs/bin/pocketbase" "$command" "$@" \
      --dir="$folder" --hooksDir="$native_programs/deploy/operator" --migrationsDir=/nonexistent "${operator[@]}"
  else
    compose exec -T pocketbase /pocketbase "$command" "$@" \
      --dir="$folder" --hooksDir=/operator --migrationsDir=/nonexistent "${operator[@]}"
  fi
}

is_running() {
  if $native; then
    systemctl is-active --quiet "konvert-$1"
  else
    [[ -n $(compose ps --quiet --status running "$1" 2>/dev/null) ]]
  fi
}

# PocketBase's data folder, as `operate` names it.
data_folder() { if $native; then echo "$native_data/pocketbase/pb_data"; else echo /pb/pb_data; fi; }

# fetch FROM TO: copies a file or folder of PocketBase's data out of the installation.
fetch() {
  if $native; then cp -r "$1" "$2"; else docker cp "$(container pocketbase):$1" "$2" >/dev/null; fi
}

# fetch_uploads TO: the uploads, if there are any.
fetch_uploads() {
  local from problem
  from=$(data_folder)/storage
  if $native; then
    if [[ -d $from ]]; then cp -r "$from" "$1"; fi
  elif ! problem=$(docker cp "$(container pocketbase):$from" "$1" 2>&1 >/dev/null); then
    grep -qiE 'could not find the file|no such file' <<<"$problem" || { echo "$problem" >&2; return 1; }
  fi
}

# redis_snapshot TO: an RDB file. Redis-cli writes it to a file first: on standard output it leaves the marker of the
# transfer at the end.
redis_snapshot() {
  if $native; then
    REDISCLI_AUTH=$(setting REDIS_PASSWORD "") redis-cli -s /run/konvert-redis/redis.sock --rdb "$1" >/dev/null 2>&1
  else
    # shellcheck disable=SC2016 # for the shell in the container
    compose exec -T redis sh -c \
      'redis-cli --rdb /data/.backup >/dev/null 2>&1 && cat /data/.backup; code=$?; rm -f /data/.backup; exit $code' >"$1"
  fi
}

# rows_of FILE: the output of `rows` without PocketBase's time stamps.
rows_of() { sed -n 's/^.* rows \([a-z]* .* [0-9]*\)$/\1/p' "$1"; }
