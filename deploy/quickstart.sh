#!/usr/bin/env bash
# Builds the gateway, gets a PocketBase, and runs both with a demo chat. `--help` lists the options. The work is done by
# deploy/quickstart/main.py.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then
  echo "quickstart: python3 (3.8 or later) is needed; install it and run this again" >&2
  exit 1
fi

# -B: no __pycache__ in the source tree. exec: signals reach main.py, which stops both servers.
exec python3 -B "$here/quickstart/main.py" "$@"
