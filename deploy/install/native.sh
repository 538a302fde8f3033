# shellcheck shell=bash disable=SC2154 # the variables of install.sh
# Installation as systemd services, without Docker; a part of install.sh.

programs=/usr/local/lib/konvert
config=/etc/konvert
env_file=$config/konvert.env
tls=$config/tls
data=/var/lib/konvert
units=/etc/systemd/system
services=(konvert-redis konvert-pocketbase konvert-gateway konvert-nginx)

install_all() {
  check_system
  local missing=()
  command -v redis-server >/dev/null || missing+=(redis-server)
  command -v nginx >/dev/null || [[ -x /usr/sbin/nginx ]] || missing+=(nginx)
  command -v openssl >/dev/null || missing+=(openssl)
  if ! systemctl is-active --quiet konvert-nginx; then
    local port
    for port in 80 443 8000 8001 8090; do check_port "$port" port_taken_native; done
  fi
  show_plan
  confirm

  if ((${#missing[@]} > 0)); then install_packages; fi
  find_gateway
  if [[ -z $pocketbase ]]; then pocketbase=$("$deploy/get-pocketbase.sh"); fi
  make_user
  write_config
  copy_programs
  "$programs/bin/konvert-gateway" init "$data/pocketbase" --app chat >/dev/null || true # kept edits are not an error
  chown -R konvert:konvert "$data"
  if $no_start; then return; fi
  create_superuser
  start
  say_what_to_keep
}

check_system() {
  ((EUID == 0)) || fail no_root
  [[ -d /run/systemd/system ]] || fail no_systemd
  check_memory
}

show_plan() {
  t plan
  if ((${#missing[@]} > 0)); then t plan_packages "${missing[*]}"; fi
  if [[ -e $env_file ]]; then t plan_env_kept "$env_file"; else t plan_env "$env_file"; fi
  if [[ -e $tls/fullchain.pem ]]; then t plan_tls_kept "$tls"; else t plan_tls "$domain" "$tls"; fi
  if [[ -z $gateway && ! -x $root/bin/konvert-gateway ]]; then t plan_binary; fi
  t plan_native "$programs" "$data" "$units"
  t plan_superuser "$email"
}

# Debian starts the services of new packages. Those are not needed: the units below run Redis and Nginx themselves.
install_packages() {
  need apt-get
  local package
  DEBIAN_FRONTEND=noninteractive apt-get -qq update >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
  for package in "${missing[@]}"; do
    if [[ $package != openssl ]]; then systemctl disable --quiet --now "$package" 2>/dev/null || true; fi
  done
}

make_user() {
  if ! getent passwd konvert >/dev/null; then
    useradd --system --user-group --home-dir "$data" --shell /usr/sbin/nologin konvert
  fi
  install -d -m 750 -o konvert -g konvert "$data" "$data/pocketbase" "$data/redis"
  install -d -m 750 -o root -g konvert "$config" "$config/local"
  install -d -m 700 /var/backups/konvert
}

# Writes secrets and certificates once.
write_config() {
  local password
  if [[ ! -e $env_file ]]; then
    password=$(random_hex 24)
    (
      umask 077
      sed -e "s/@SECRET@/$(random_hex 32)/" -e "s/@REDIS_PASSWORD@/$password/" \
        -e "s/@SITE_DOMAIN@/$domain/" "$deploy/systemd/konvert.env" >"$env_file"
      if speaks_russian; then set_line "$env_file" LANGUAGE_OF_MESSAGES ru; fi
    )
  fi
  if [[ -n $chosen_language ]]; then set_line "$env_file" LANGUAGE_OF_MESSAGES "$chosen_language"; fi
  password=$(sed -n 's/^REDIS_PASSWORD=//p' "$env_file")
  (
    umask 027
    sed "s/@REDIS_PASSWORD@/$password/" "$deploy/systemd/redis.conf" >"$config/redis.conf"
    native_nginx >"$config/nginx.conf"
    cp "$deploy/nginx/site.conf" "$config/site.conf"
    self_signed "$tls"
  )
  chgrp -R konvert "$config"
  chmod 640 "$tls/privkey.pem"
  chmod -R g+rX "$config/local"
}

# The configuration of the containers with the host's addresses, ports and folders.
native_nginx() {
  sed -e 's/listen 8080/listen 80/; s/listen 8443/listen 443/' -e '/resolver 127/d' -e '/Docker.s DNS/d' \
    -e 's/pocketbase:8090/127.0.0.1:8090/; s/gateway:8000/127.0.0.1:8000/' -e "s|/etc/nginx/tls|$tls|" \
    -e "/https-port/d; /^ *# Written by the container/d; s|include site.conf|include $config/site.conf|" \
    -e "s|/usr/share/nginx/chat|$programs/chat|; s|/dev/stdout|syslog:server=unix:/dev/log,nohostname|" \
    "$deploy/nginx/nginx.conf"
}

# Programs are replaced by a rename: the running ones go on until their restart.
copy_programs() {
  local page=$deploy/konvert/chat/dist part
  [[ -e $page/index.html ]] || page=$deploy/nginx/placeholder
  install -d "$programs/bin" "$programs/deploy"
  replace "$root/bin/konvert-gateway" "$programs/bin/konvert-gateway"
  replace "$pocketbase" "$programs/bin/pocketbase"
  rm -rf "$programs/chat"
  cp -r "$page" "$programs/chat"
  if [[ $deploy != "$programs/deploy" ]]; then
    for part in install.sh backup.sh restore.sh get-pocketbase.sh install backup operator nginx systemd; do
      rm -rf "${programs:?}/deploy/$part"
      cp -r "$deploy/$part" "$programs/deploy/$part"
    done
  fi
  cp "$deploy"/systemd/konvert-*.{service,socket,timer} "$units/"
  systemctl daemon-reload
}

replace() {
  if [[ $1 -ef $2 ]]; then return; fi
  install -m 755 "$1" "$2.new"
  mv -f "$2.new" "$2"
}

create_superuser() {
  superuser_password=$(random_hex 12)
  superuser=$(SUPERUSER_EMAIL=$email SUPERUSER_PASSWORD=$superuser_password as_konvert "$programs/bin/pocketbase" prepare \
    --dir="$data/pocketbase/pb_data" --hooksDir="$programs/deploy/operator" --migrationsDir="$data/none" \
    --automigrate=false 2>&1) || { echo "$superuser" >&2; fail no_superuser; }
  superuser=$(grep -o 'superuser: .*' <<<"$superuser") || fail no_superuser
}

as_konvert() { setpriv --reuid=konvert --regid=konvert --clear-groups -- "$@"; }

start() {
  local service
  t starting
  systemctl enable --quiet konvert-gateway.socket konvert-backup.timer "${services[@]}"
  # The socket stays open while the gateway restarts, so its clients wait instead of being refused.
  systemctl start konvert-gateway.socket konvert-backup.timer
  for service in "${services[@]}"; do systemctl restart "$service"; done
  local deadline=$((SECONDS + 120))
  until is_healthy; do
    if ((SECONDS > deadline)); then
      journalctl --no-pager --lines 30 "${services[@]/#/--unit=}" >&2
      show_password "https://$domain"
      fail not_healthy "journalctl -u 'konvert-*'"
    fi
    sleep 0.5
  done
}

is_healthy() {
  local health="$programs/bin/konvert-gateway health" admin
  admin=$(sed -n 's/^GATEWAY_ADMIN_LISTEN=//p' "$env_file")
  $health http://127.0.0.1:8090/api/health 2>/dev/null &&
    GATEWAY_SECRET=$(random_hex 32) GATEWAY_ADMIN_LISTEN=$admin $health 2>/dev/null &&
    systemctl is-active --quiet "${services[@]}"
}

say_what_to_keep() {
  echo
  t runs "https://$domain"
  show_password "https://$domain"
  if [[ -e $tls/self-signed ]]; then t self_signed; fi
  t next_backup_native /var/backups/konvert
  if [[ -e $deploy/konvert/MIGRATION_GUIDE.md ]]; then t next_migration "$deploy/konvert"; fi
}

uninstall() {
  check_system
  t plan
  t plan_uninstall
  confirm
  systemctl disable --quiet --now konvert-gateway.socket konvert-backup.timer "${services[@]}" 2>/dev/null || true
  rm -f "$units"/konvert-{redis,pocketbase,gateway,nginx,backup}.service "$units/konvert-gateway.socket" "$units/konvert-backup.timer"
  systemctl daemon-reload
  rm -rf "$programs"
  t uninstalled "$data $config /var/backups/konvert" "rm -r $data $config /var/backups/konvert; userdel konvert"
}
