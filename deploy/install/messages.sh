# shellcheck shell=bash
# Messages of install.sh, backup.sh and restore.sh in English and Russian. `t KEY ARGUMENT...` prints a message in the
# language of $LANGUAGE_OF_MESSAGES, or else of the locale; on a terminal, in lines of at most 80 columns. The installation
# keeps its language in its file of settings, since a cron job has no locale.

declare -A EN RU

EN[no_docker]='Docker is missing or not reachable. Install Docker, start it, and run this as root or as a member of the group docker. Without Docker: %s --native'
RU[no_docker]='Docker не найден или недоступен. Установите и запустите Docker, а затем запустите этот скрипт от имени root или пользователя из группы docker. Без Docker: %s --native'
EN[no_compose]='Docker Compose 2.20 or later is missing (found: %s). Install the package docker-compose-plugin.'
RU[no_compose]='Нужен Docker Compose версии 2.20 или новее (найдено: %s). Установите пакет docker-compose-plugin.'
EN[no_tool]='The program %s is missing. Install it and run this again.'
RU[no_tool]='Не найдена программа %s. Установите её и запустите скрипт снова.'
EN[no_root]='--native writes to /etc and /usr: run it as root.'
RU[no_root]='--native пишет в /etc и /usr: запустите скрипт от имени root.'
EN[no_systemd]='systemd does not run here, so --native cannot install services.'
RU[no_systemd]='Здесь не работает systemd, поэтому --native не может установить службы.'
EN[little_memory]='Note: %s MB of memory. The stack idles in under 200 MB; below 400 MB, add swap.'
RU[little_memory]='Внимание: памяти всего %s МБ. Без нагрузки система занимает меньше 200 МБ; если памяти меньше 400 МБ, добавьте файл подкачки.'
EN[port_taken]='Port %s is taken by another program. Stop that program, or choose another port with %s in %s.'
RU[port_taken]='Порт %s занят другой программой. Остановите её или выберите другой порт: переменная %s в файле %s.'
EN[port_taken_first]='Port %s is taken by another program. Stop that program, or choose other ports, for example: %s'
RU[port_taken_first]='Порт %s занят другой программой. Остановите её или выберите другие порты, например: %s'
EN[port_taken_native]='Port %s is taken by another program. Stop that program: --native needs the ports 80, 443, 8000, 8001 and 8090.'
RU[port_taken_native]='Порт %s занят другой программой. Остановите её: для --native нужны порты 80, 443, 8000, 8001 и 8090.'
EN[bad_argument]='Unknown argument: %s (see --help)'
RU[bad_argument]='Неизвестный аргумент: %s (см. --help)'
EN[plan]='This will:'
RU[plan]='Что будет сделано:'
EN[plan_env]='  - write %s with random secrets'
RU[plan_env]='  - создать %s со случайными паролями и ключами'
EN[plan_env_kept]='  - keep %s as it is'
RU[plan_env_kept]='  - оставить %s без изменений'
EN[plan_env_added]='  - keep %s and add what is missing: %s'
RU[plan_env_added]='  - оставить %s и добавить недостающее: %s'
EN[plan_tls]='  - make a self-signed certificate for %s in %s'
RU[plan_tls]='  - выпустить самоподписанный сертификат для %s в %s'
EN[plan_tls_kept]='  - keep the certificate in %s'
RU[plan_tls_kept]='  - оставить сертификат в %s'
EN[plan_binary]='  - compile the gateway, which takes minutes and 2 GB of memory'
RU[plan_binary]='  - собрать шлюз из исходного кода (несколько минут и 2 ГБ памяти)'
EN[plan_docker]='  - build two images, start PocketBase, Redis, the gateway and Nginx (ports %s and %s), and wait until all are healthy'
RU[plan_docker]='  - собрать два образа, запустить PocketBase, Redis, шлюз и Nginx (порты %s и %s) и дождаться их готовности'
EN[plan_superuser]='  - create the superuser %s, unless one exists'
RU[plan_superuser]='  - создать суперпользователя %s, если его ещё нет'
EN[plan_packages]='  - install the packages: %s'
RU[plan_packages]='  - установить пакеты: %s'
EN[plan_native]='  - install the programs into %s, data into %s, units into %s, and start the services'
RU[plan_native]='  - установить программы в %s, данные в %s, службы в %s и запустить их'
EN[go_on]='Continue? [y/N] '
RU[go_on]='Продолжить? [y/N, д/н] '
EN[stopped]='Nothing was changed.'
RU[stopped]='Ничего не изменено.'
EN[building]='Building the images…'
RU[building]='Собираю образы…'
EN[compiling]='Compiling the gateway…'
RU[compiling]='Собираю шлюз…'
EN[starting]='Starting, and waiting until all is healthy…'
RU[starting]='Запускаю и жду готовности…'
EN[not_healthy]='Not every service became healthy. The last lines of the logs stand above; "%s" shows more. Correct the cause and run this again.'
RU[not_healthy]='Не все службы заработали. Последние строки журналов показаны выше, подробнее: «%s». Устраните причину и запустите скрипт снова.'
EN[runs]='The chat runs: %s'
RU[runs]='Чат работает: %s'
EN[keep]='Keep this; it is shown only once:'
RU[keep]='Сохраните эти данные, больше скрипт их не покажет:'
EN[keep_superuser]='  dashboard  %s/_/\n  user       %s\n  password   %s'
RU[keep_superuser]='  панель        %s/_/\n  пользователь  %s\n  пароль        %s'
EN[keep_secrets]='  secrets    %s (readable for you alone; back it up)'
RU[keep_secrets]='  секреты       %s (файл доступен только вам; сделайте его копию)'
EN[superuser_exists]='The superuser exists already; its password is unchanged.'
RU[superuser_exists]='Суперпользователь уже есть, его пароль не изменился.'
EN[no_superuser]='PocketBase could not create the superuser; the reason stands above. Is the address valid (--email)?'
RU[no_superuser]='PocketBase не смог создать суперпользователя, причина показана выше. Верен ли адрес (--email)?'
EN[self_signed]='The certificate is self-signed: browsers warn. README.md, "HTTPS", replaces it.'
RU[self_signed]='Сертификат самоподписанный, поэтому браузеры будут предупреждать. Как его заменить: README.ru.md, раздел «HTTPS».'
EN[next_backup]='Backups: %s. Set a schedule as README.md describes.'
RU[next_backup]='Резервные копии: %s. Как делать их по расписанию: README.ru.md, раздел «Резервные копии».'
EN[next_backup_native]='Backups run every night (konvert-backup.timer), into %s.'
RU[next_backup_native]='Резервные копии делаются каждую ночь (konvert-backup.timer) в %s.'
EN[next_migration]='To move an existing chat here: %s/MIGRATION_GUIDE.md'
RU[next_migration]='Как перенести сюда существующий чат: %s/MIGRATION_GUIDE.ru.md'
EN[uninstalled]='Stopped and removed. The data stay: %s. To delete them for good: %s'
RU[uninstalled]='Остановлено и удалено. Данные сохранены: %s. Чтобы удалить их навсегда: %s'
EN[bad_nginx]='Nginx does not accept its configuration and goes on with the former one; the reason stands above. Correct the file and run this again.'
RU[bad_nginx]='Nginx не принял новую конфигурацию и работает со старой, причина показана выше. Исправьте файл и запустите скрипт снова.'
EN[plan_uninstall]='  - stop and remove the services; data, secrets and certificates stay'
RU[plan_uninstall]='  - остановить и удалить службы; данные, пароли и сертификаты останутся'
EN[wrong_binary]='%s does not run here, or is no static binary of the gateway. Give another with --gateway FILE.'
RU[wrong_binary]='%s здесь не запускается или не является статической сборкой шлюза. Укажите другой файл: --gateway ФАЙЛ.'
EN[no_binary]='There is no binary of the gateway. Take a release, or give one with --gateway FILE.'
RU[no_binary]='Нет программы шлюза. Возьмите готовый выпуск или укажите файл: --gateway ФАЙЛ.'

# --- backup.sh and restore.sh
EN[not_running]='%s does not run; start it first.'
RU[not_running]='Служба %s не работает, сначала запустите её.'
EN[backup_done]='backup: %s (%s, %s rows, checked)'
RU[backup_done]='резервная копия: %s (%s, строк: %s, проверена)'
EN[backup_plain]='Note: the backup is not encrypted and contains secrets and messages. Set BACKUP_AGE_RECIPIENT or BACKUP_PASSPHRASE_FILE.'
RU[backup_plain]='Внимание: копия не зашифрована и содержит пароли и сообщения. Задайте BACKUP_AGE_RECIPIENT или BACKUP_PASSPHRASE_FILE.'
EN[backup_failed]='backup: failed; no backup was written'
RU[backup_failed]='резервная копия: ошибка, копия не создана'
EN[upload_failed]='backup: the upload of %s to %s failed; the file stays in %s'
RU[upload_failed]='резервная копия: не удалось отправить %s в %s; файл остался в %s'
EN[removed_old]='removed the old backup %s'
RU[removed_old]='удалена старая копия %s'
EN[no_archive]='There is no backup %s.'
RU[no_archive]='Нет резервной копии %s.'
EN[cannot_decrypt]='The backup could not be decrypted: set BACKUP_AGE_IDENTITY_FILE (age) or BACKUP_PASSPHRASE_FILE (openssl) to the right file.'
RU[cannot_decrypt]='Не удалось расшифровать копию: укажите верный файл в BACKUP_AGE_IDENTITY_FILE (age) или BACKUP_PASSPHRASE_FILE (openssl).'
EN[damaged]='The backup is damaged: a checksum does not match. Nothing was restored.'
RU[damaged]='Копия повреждена: контрольная сумма не совпадает. Ничего не восстановлено.'
EN[not_empty]='The folder %s already holds data. restore.sh never overwrites: move the data away first (%s).'
RU[not_empty]='В папке %s уже есть данные. restore.sh ничего не перезаписывает: сначала перенесите их (%s).'
EN[not_empty_volume]='The Docker volume %s already holds data. restore.sh never overwrites. If you do not need these data any more: %s'
RU[not_empty_volume]='В томе Docker %s уже есть данные. restore.sh ничего не перезаписывает. Если эти данные больше не нужны: %s'
EN[no_containers]='The containers could not be created; the reason stands above. Correct the cause and run this again. If a network overlaps, choose another EDGE_SUBNET in %s.'
RU[no_containers]='Не удалось создать контейнеры, причина показана выше. Устраните её и запустите скрипт снова. Если пересекаются сети, задайте другую в переменной EDGE_SUBNET файла %s.'
EN[rows_differ]='The restored rows differ from the backup; the services are not started. The differences stand above.'
RU[rows_differ]='Восстановленные строки отличаются от копии, службы не запущены. Различия показаны выше.'
EN[restored]='Restored from %s: checksums match, %s rows in %s tables as in the backup.'
RU[restored]='Восстановлено из %s: контрольные суммы совпадают, строк: %s, таблиц: %s, всё как в копии.'
EN[config_kept]='%s exists and stays as it is; the backup holds another copy. If clients cannot log in, compare the two.'
RU[config_kept]='%s уже есть и остаётся без изменений; в резервной копии лежит другой вариант. Если войти не получается, сравните их.'

t() {
  local key=$1 text
  shift
  # shellcheck disable=SC2059 # the formats are the messages above
  if speaks_russian; then printf -v text -- "${RU[$key]}" "$@"; else printf -v text -- "${EN[$key]}" "$@"; fi
  if [[ -t 1 ]]; then wrap 80 <<<"$text"; else printf '%s\n' "$text"; fi
}

speaks_russian() { [[ ${LANGUAGE_OF_MESSAGES:-${LC_ALL:-${LC_MESSAGES:-${LANG:-}}}} == ru* ]]; }

# load_language FILE: the language that the installation keeps, unless one is chosen for this run.
load_language() {
  if [[ -n ${LANGUAGE_OF_MESSAGES:-} || ! -r $1 ]]; then return; fi
  LANGUAGE_OF_MESSAGES=$(sed -n 's/^LANGUAGE_OF_MESSAGES=//p' "$1" | tail -n 1)
  export LANGUAGE_OF_MESSAGES
}

# set_line FILE NAME VALUE: sets the variable NAME in FILE, and leaves all other lines as they are.
set_line() {
  if grep -q "^$2=" "$1"; then
    sed -i "s|^$2=.*|$2=$3|" "$1"
  else
    if [[ -n $(tail -c 1 "$1") ]]; then echo >>"$1"; fi
    printf '%s=%s\n' "$2" "$3" >>"$1"
  fi
}

# wrap COLUMNS: breaks long lines of the input between words; further lines of a list item are indented like its first.
wrap() {
  local line head indent
  while IFS= read -r line; do
    indent=${line%%[! -]*}
    indent=${indent//-/ }
    while ((${#line} > $1)); do
      head=${line:0:$1+1}
      head=${head% *}
      # A word that is longer than a line stays whole.
      if [[ -z ${head// /} || ${#head} -gt $1 ]]; then break; fi
      printf '%s\n' "$head"
      line=$indent${line:${#head}+1}
    done
    printf '%s\n' "$line"
  done
}

# fail KEY ARGUMENT...: prints the message to standard error and ends.
fail() { t "$@" >&2; exit 1; }

# random_hex BYTES
random_hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }
