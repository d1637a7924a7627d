#!/usr/bin/env bash
# Installs the clients that clients/ drives: Mosquitto's programs where they are missing, and the others, pinned, below
# the target directory, where the tests look for them. What is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")/../../../.."
clients="${CARGO_TARGET_DIR:-target}/clients"
paho_1=1.6.1 paho_2=2.1.0 mqttjs=5.16.0

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

packages=()
for program in mosquitto_pub mosquitto_sub mosquitto_rr; do
    command -v $program >/dev/null || packages+=(mosquitto-clients)
done
command -v argon2 >/dev/null || packages+=(argon2)
command -v python3 >/dev/null || packages+=(python3)
python3 -m pip --version >/dev/null 2>&1 || packages+=(python3-pip)
command -v node >/dev/null || packages+=(nodejs)
command -v npm >/dev/null || packages+=(npm)
command -v haproxy >/dev/null || packages+=(haproxy)
command -v systemd-socket-activate >/dev/null || packages+=(systemd)
command -v chromium >/dev/null || packages+=(chromium)
if [ ${#packages[@]} -gt 0 ]; then
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
# What is known of the packages may be older than the packages are.
fetch() {
    apt-get download -qq "$@" 2>/dev/null || { as_root apt-get update -qq && apt-get download -qq "$@"; }
}

# Into a directory of its own, and only then where the tests look: an installation that was cut off is none.
place() {
    rm -rf "$2" && mv "$1" "$2"
}

mkdir -p "$clients"
install_paho() {
    [ -d "$clients/paho-$1" ] && return
    # 1.6.1 comes as sources; --no-build-isolation is not given, so that what builds them is fetched, too.
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check \
        --target "$clients/new" "paho-mqtt==$1"
    place "$clients/new" "$clients/paho-$1"
}
rm -rf "$clients/new"
install_paho $paho_1
install_paho $paho_2
if [ ! -d "$clients/mqttjs-$mqttjs" ]; then
    mkdir "$clients/new"
    npm install --silent --no-audit --no-fund --prefix "$clients/new" "mqtt@$mqttjs"
    place "$clients/new" "$clients/mqttjs-$mqttjs"
fi
if ! command -v mosquitto_passwd >/dev/null && [ ! -d "$clients/mosquitto" ]; then
    # It comes with a server, which would be started: the package is unpacked and not installed. It needs no library that
    # Mosquitto's clients do not need.
    mkdir "$clients/new"
    (cd "$clients/new" && fetch mosquitto && dpkg -x mosquitto_*.deb . && rm mosquitto_*.deb)
    place "$clients/new" "$clients/mosquitto"
fi
