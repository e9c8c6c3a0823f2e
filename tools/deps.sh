#!/bin/sh
# Installs the Debian packages that the tests need and that are not there yet: the
# real clients, a real registry and nginx. Needs root only when something is missing.
set -eu

packages="
buildah
busybox-static
ca-certificates
chromium
conmon
containerd
crun
curl
docker-compose
docker.io
docker-registry
e2fsprogs
gcc
haproxy
iproute2
iptables
libc6-dev
mount
nginx-light
openssh-client
openssl
podman
prometheus
redis-server
rpm
runc
skopeo
systemd
umoci
"

# The dashboard's tests take any Node that is there.
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
	packages="$packages nodejs npm"
fi

missing=
for package in $packages; do
	state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
	if [ "$state" != installed ]; then
		missing="$missing $package"
	fi
done
if [ -z "$missing" ]; then
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	echo "The tests need these packages:$missing" >&2
	echo "Install them with: sudo apt-get install --no-install-recommends$missing" >&2
	exit 1
fi

# Daemons are started by the tests themselves, each with its own folders; Debian's
# must not start by being installed. A policy that is already there is kept.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi

export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of words
install="apt-get install -y -q --no-install-recommends $missing"
if ! $install; then
	# The lists of packages may be missing or old.
	apt-get update -q
	$install
fi
