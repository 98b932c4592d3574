#!/usr/bin/env bash
# Build the Dockerfile as it is and serve a certificate from the image; exits 0 if the certificate is finite, the
# image's own health check passes, no process of it runs as root, and SIGTERM stops it.
#
# With a Docker engine: docker build, docker run with a read-only root and no capabilities.
# Without one (root on Debian): deploy/image-without-engine.sh builds and runs the same file with buildah.
set -euo pipefail
cd "$(dirname "$0")/.."
model=${1:-examples/digits.onnx}
[[ -f $model ]] || { echo "There is no $model to certify." >&2; exit 2; }

if ! docker info >/dev/null 2>&1; then
    exec deploy/image-without-engine.sh "$model"
fi

image=lipcert-image-check
container=
cleanup() { [[ -z $container ]] || docker rm --force --volumes "$container" >/dev/null; }
trap cleanup EXIT

docker build --tag "$image" --build-arg PIP_OPTIONS="${PIP_OPTIONS:-}" .
container=$(docker run --detach --init --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
    --publish 127.0.0.1::8080 "$image")
address=$(docker port "$container" 8080/tcp | head -n 1)
python3 deploy/check_served.py --url "http://$address" --model "$model" || { docker logs "$container"; exit 1; }
uid=$(docker exec "$container" id -u)
[[ $uid != 0 ]] || { echo "The image runs as root." >&2; exit 1; }
mapfile -t health < <(docker inspect --format '{{range slice .Config.Healthcheck.Test 1}}{{println .}}{{end}}' "$container" | sed '/^$/d')
docker exec "$container" "${health[@]}"
docker stop --time 45 "$container" >/dev/null
status=$(docker inspect --format '{{.State.ExitCode}}' "$container")
[[ $status == 0 || $status == 143 ]] || { echo "SIGTERM ended the server with status $status." >&2; exit 1; }
echo "image-check: passed (Docker engine, uid $uid)"
