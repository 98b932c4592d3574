#!/usr/bin/env bash
# Usage: image-without-engine.sh MODEL - what image-check.sh does, where no Docker engine runs: as root, with buildah.
#
# No registry is needed: the base image that the Dockerfile names is made from Debian's own packages of the same suite
# and the same Python. What pip needs on this machine (certificates, configuration, folders with packages) is mounted
# read-only during the build; it does not become part of the image. The image shares this machine's network.
set -euo pipefail
model=$1
cache=${LIPCERT_IMAGE_CACHE:-build/image-check}
image=lipcert-image-check

((EUID == 0)) || { echo "Without a Docker engine this check needs root (it builds with buildah in a chroot)." >&2; exit 2; }
missing=()
for tool in buildah mmdebstrap; do command -v $tool >/dev/null || missing+=($tool); done
if ((${#missing[@]})); then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

mkdir -p "$cache"
work=$(mktemp -d "$(realpath "$cache")/run.XXXXXX")
server=
cleanup() {
    if [[ -n $server ]] && kill -0 "$server" 2>/dev/null; then
        python3 deploy/processes.py stop --root "$server" --seconds 10 || true
    fi
    buildah_ umount --all >/dev/null 2>&1 || true
    rm -rf "$work"
}
buildah_() {
    buildah --storage-driver vfs --root "$work/storage" --runroot "$work/runroot" "$@"
}
trap cleanup EXIT

# The base image, under its real name.
base=$(sed -n 's/^FROM \([^ ]*\).*/\1/p' Dockerfile | sort -u)
[[ $base =~ ^python:([0-9]+\.[0-9]+)-slim-([a-z]+)$ ]] || { echo "Cannot make the base image '$base' here." >&2; exit 2; }
version=${BASH_REMATCH[1]} suite=${BASH_REMATCH[2]}
packages=$cache/base-$suite.tar
if [[ ! -f $packages ]]; then
    mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-venv,python3-pip "$suite" "$work/base.tar"
    mv "$work/base.tar" "$packages"
fi
mkdir "$work/base"
ln "$packages" "$work/base/base.tar" 2>/dev/null || cp "$packages" "$work/base/base.tar"
cat >"$work/base/Dockerfile" <<'BASE'
FROM scratch
ADD base.tar /
RUN ln -s python3 /usr/bin/python
CMD ["python3"]
BASE
buildah_ bud --isolation chroot --format docker --pull=never --tag "$base" "$work/base"

# What pip is given: this machine's settings, merged into one file, and the local folders that they name.
volumes=()
bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
[[ ! -f $bundle ]] || volumes+=(--volume "$(realpath "$bundle"):/etc/ssl/certs/ca-certificates.crt:ro")
python3 deploy/pip_settings.py --write "$work/pip.conf" --bundle /etc/ssl/certs/ca-certificates.crt >"$work/folders"
volumes+=(--volume "$work/pip.conf:/etc/pip.conf:ro")
while IFS= read -r folder; do volumes+=(--volume "$folder:$folder:ro"); done <"$work/folders"

buildah_ bud --isolation chroot --format docker --pull=never "${volumes[@]}" \
    --build-arg PIP_OPTIONS="${PIP_OPTIONS:-}" --tag "$image" .

# The image's own command, user and health check, on a free port of this machine.
container=$(buildah_ from --pull=never "$image")
found=$(buildah_ run --isolation chroot "$container" -- python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[[ $found == "$version" ]] || { echo "The base image has Python $found, not $version." >&2; exit 1; }
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
buildah_ inspect --type image "$image" >"$work/image.json"
mapfile -t command < <(python3 deploy/image_config.py command "$work/image.json" --port "$port")
mapfile -t health < <(python3 deploy/image_config.py health "$work/image.json" --port "$port")
buildah_ run --isolation chroot "$container" -- "${command[@]}" >"$work/server.log" 2>&1 &
server=$!
python3 deploy/check_served.py --url "http://127.0.0.1:$port" --model "$model" --while-pid "$server" \
    || { cat "$work/server.log" >&2; exit 1; }
buildah_ run --isolation chroot "$container" -- "${health[@]}"
uids=$(python3 deploy/processes.py uids --root "$server" --command "${command[0]}")
[[ -n $uids && " $uids " != *" 0 "* ]] || { echo "Processes of the image run as uid '$uids'." >&2; exit 1; }
python3 deploy/processes.py stop --root "$server" --command "${command[0]}" --seconds 45
status=0
wait "$server" || status=$?
server=
# A server that finishes and then lets the signal end it has status 1 here, with a word from buildah.
if [[ $status != 0 ]] && ! grep -q '^subprocess exited on terminated' "$work/server.log"; then
    cat "$work/server.log" >&2
    echo "SIGTERM ended the server with status $status." >&2
    exit 1
fi
echo "image-check: passed (no Docker engine, uid $uids)"
