# shellcheck shell=bash disable=SC2154 # the variables of install.sh
# Installation with Docker Compose; a part of install.sh.

env_file=$deploy/.env
tls=$deploy/tls/live
secrets=(GATEWAY_SECRET:32 REDIS_PASSWORD:24 GRAFANA_PASSWORD:12)
# shellcheck source=deploy/install/compose.sh
source "$deploy/install/compose.sh"

install_all() {
  check_docker
  need openssl
  check_memory
  local http https running nginx
  http=$(value HTTP_PORT 80) https=$(value HTTPS_PORT 443)
  running=$(compose_now ps --quiet 2>/dev/null || true)
  if [[ -z $running ]]; then
    check_free "$http" HTTP_PORT
    check_free "$https" HTTPS_PORT
    check_free "$(value POCKETBASE_PORT 8090)" POCKETBASE_PORT
  fi
  show_plan "$http" "$https"
  confirm

  write_env
  if [[ -z $(value TLS_FOLDER "") ]]; then
    # Nginx in its container runs as user 101 and has to read the key. On the host, the outer folder is private.
    mkdir -p "$tls"
    self_signed "$tls"
    chmod 700 "$deploy/tls"
    mkdir -p "$tls/acme"
    chmod 755 "$tls" "$tls/acme"
    # A certificate of somebody else's has its own owner and rights.
    if [[ -e $tls/self-signed ]]; then chmod 644 "$tls/privkey.pem" "$tls/fullchain.pem"; fi
  fi
  # Files of the operator, which Nginx's user has to read. Of another owner's files, `nginx -t` tells.
  mkdir -p "$deploy/nginx/local"
  chmod -R a+rX "$deploy/nginx/local" 2>/dev/null || true
  find_gateway
  t building
  compose build --quiet >/dev/null
  if $no_start; then return; fi
  create_superuser
  nginx=$(compose ps --quiet nginx)
  t starting
  if ! compose up --detach --wait --wait-timeout 240 --remove-orphans 2>&1 | quietly; then
    compose logs --tail 20 >&2
    show_password "https://$domain"
    fail not_healthy "docker compose logs"
  fi
  # A new container has read the files already.
  if [[ -n $nginx && $nginx == "$(compose ps --quiet nginx)" ]]; then reload_nginx; fi
  say_what_to_keep "$https"
}

# check_free PORT NAME: ends if another program listens on the port. Before the first run there is no .env to write it to.
check_free() {
  if [[ -e $env_file ]]; then
    check_port "$1" port_taken "$2" "$env_file"
  else
    check_port "$1" port_taken_first "HTTP_PORT=8080 HTTPS_PORT=8443 POCKETBASE_PORT=8091 $command_line"
  fi
}

# Workers with connections go on until these end; the new workers take new connections.
reload_nginx() {
  local nginx=(compose exec -T nginx nginx -e stderr -c /etc/nginx/konvert/nginx.conf)
  if ! "${nginx[@]}" -t -q; then
    show_password "https://$domain"
    fail bad_nginx
  fi
  "${nginx[@]}" -s reload
}

check_docker() {
  local version
  docker info >/dev/null 2>&1 || fail no_docker "$0"
  version=$(docker compose version --short 2>/dev/null || true)
  version=${version#v}
  [[ $version =~ ^([0-9]+)\.([0-9]+) ]] || fail no_compose "${version:--}"
  if ((BASH_REMATCH[1] < 2 || (BASH_REMATCH[1] == 2 && BASH_REMATCH[2] < 20))); then fail no_compose "$version"; fi
}

# Works before .env exists too.
compose_now() { [[ -e $env_file ]] && compose "$@"; }
# Passes on errors alone; Compose writes its progress to standard error.
quietly() { grep -iE 'error|warn|fail|unhealthy' || true; }

# value NAME DEFAULT: a variable of the environment or of .env, in Compose's order.
value() {
  local line=""
  if [[ -n ${!1:-} ]]; then echo "${!1}"; return; fi
  if [[ -e $env_file ]]; then line=$(grep -E "^$1=" "$env_file" | tail -n 1 || true); fi
  line=${line#*=}
  echo "${line:-$2}"
}

show_plan() {
  t plan
  local missing
  missing=$(missing_secrets)
  if [[ ! -e $env_file ]]; then
    t plan_env "$env_file"
  elif [[ -n $missing ]]; then
    t plan_env_added "$env_file" "${missing//$'\n'/, }"
  else
    t plan_env_kept "$env_file"
  fi
  if [[ -n $(value TLS_FOLDER "") || -e $tls/fullchain.pem ]]; then
    t plan_tls_kept "$(value TLS_FOLDER "$tls")"
  else
    t plan_tls "$domain" "$tls"
  fi
  if [[ -z $gateway && ! -x $root/bin/konvert-gateway ]]; then t plan_binary; fi
  t plan_docker "$1" "$2"
  t plan_superuser "$email"
}

# missing_secrets: names of the secrets that .env does not have, one on each line.
missing_secrets() {
  local secret
  for secret in "${secrets[@]}"; do
    if ! grep -q "^${secret%:*}=." "$env_file" 2>/dev/null; then echo "${secret%:*}"; fi
  done
}

# Writes .env once. Later runs only add secrets that are missing, as in a file written by hand, the chosen language, and
# the chat's page when it has been built meanwhile.
write_env() {
  local page=$deploy/konvert/chat/dist secret missing
  if [[ ! -e $env_file ]]; then
    (
      umask 077
      cat "$deploy/.env.example" >"$env_file.new"
      keep_choices
      if speaks_russian; then set_line "$env_file.new" LANGUAGE_OF_MESSAGES ru; fi
      mv "$env_file.new" "$env_file"
    )
  fi
  missing=$(missing_secrets)
  if [[ -n $missing ]]; then
    chmod go-rwx "$env_file"
    for secret in "${secrets[@]}"; do
      if grep -qx "${secret%:*}" <<<"$missing"; then set_line "$env_file" "${secret%:*}" "$(random_hex "${secret#*:}")"; fi
    done
  fi
  if ! grep -q '^SITE_DOMAIN=' "$env_file"; then set_line "$env_file" SITE_DOMAIN "$domain"; fi
  if [[ -n $chosen_language ]]; then set_line "$env_file" LANGUAGE_OF_MESSAGES "$chosen_language"; fi
  if [[ -e $page/index.html ]] && ! grep -q '^CHAT_FILES=' "$env_file"; then
    printf 'CHAT_FILES=./konvert/chat/dist\n' >>"$env_file"
  fi
}

# Variables of .env.example that are set in the environment of the first run become part of .env, so that later calls
# of Compose find the same ports and images.
keep_choices() {
  local name
  while read -r name; do
    if [[ -n ${!name:-} ]]; then printf '%s=%s\n' "$name" "${!name}" >>"$env_file.new"; fi
  done < <(sed -nE 's/^#([A-Z][A-Z0-9_]*)=.*/\1/p' "$deploy/.env.example")
}

compile_in_container() {
  local image=konvert-gateway-source:local container
  docker build --quiet --file "$deploy/docker/gateway-source.Dockerfile" --tag "$image" \
    --build-arg "RUST_IMAGE=$(value RUST_IMAGE rust:1.88-bookworm)" \
    --build-arg "KONVERT_COMMIT=$(git -C "$root" rev-parse --short=12 HEAD 2>/dev/null || true)" "$root" >/dev/null || return 1
  container=$(docker create "$image") || return 1
  docker cp "$container:/konvert-gateway" "$1"
  docker rm "$container" >/dev/null
}

# Before the first start, so that the dashboard never offers to create a superuser to a stranger.
create_superuser() {
  superuser_password=$(random_hex 12)
  superuser=$(SUPERUSER_EMAIL=$email SUPERUSER_PASSWORD=$superuser_password compose run --rm --no-deps -T \
    -e SUPERUSER_EMAIL -e SUPERUSER_PASSWORD pocketbase prepare --dir=/pb/pb_data --hooksDir=/operator \
    --migrationsDir=/pb/none --automigrate=false 2>&1) || { echo "$superuser" >&2; fail no_superuser; }
  superuser=$(grep -o 'superuser: .*' <<<"$superuser") || fail no_superuser
}

say_what_to_keep() {
  local url=https://$domain
  if [[ $1 != 443 ]]; then url+=:$1; fi
  echo
  t runs "$url"
  show_password "$url"
  if [[ -e $tls/self-signed ]]; then t self_signed; fi
  t next_backup "$deploy/backup.sh"
  if [[ -e $deploy/konvert/MIGRATION_GUIDE.md ]]; then t next_migration "$deploy/konvert"; fi
}

uninstall() {
  check_docker
  t plan
  t plan_uninstall
  confirm
  local output volumes
  # Monitoring too; versions of Compose that do not know the star know the name.
  output=$(compose --profile '*' --profile monitoring down --remove-orphans 2>&1) || { echo "$output" >&2; exit 1; }
  volumes=$(docker volume ls --quiet --filter "label=com.docker.compose.project=$(value COMPOSE_PROJECT_NAME konvert)" | xargs)
  t uninstalled "$volumes $env_file $tls" "docker volume rm $volumes"
}
