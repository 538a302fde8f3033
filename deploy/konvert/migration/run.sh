#!/bin/sh
# Runs konvert-migrate with the settings of .env in this folder, if there is one. $KONVERT_MIGRATE names the program;
# otherwise the program is taken from the PATH.
set -eu
if [ -f .env ]; then
  set -a
  . ./.env
  set +a
fi
exec "${KONVERT_MIGRATE:-konvert-migrate}" "$@"
