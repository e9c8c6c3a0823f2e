#!/bin/sh
# After installation and upgrade, of all formats of packages.
set -e

if ! getent passwd forebay >/dev/null 2>&1; then
	if command -v systemd-sysusers >/dev/null 2>&1; then
		systemd-sysusers forebay.conf
	elif command -v useradd >/dev/null 2>&1; then
		useradd --system --user-group --home-dir /var/lib/forebay --no-create-home --shell /usr/sbin/nologin forebay
	else # Alpine
		addgroup -S forebay
		adduser -S -D -H -G forebay -h /var/lib/forebay -s /sbin/nologin forebay
	fi
fi
# It may hold passwords, which are the service's and nobody else's.
chown root:forebay /etc/forebay
chmod 0750 /etc/forebay

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# What was running goes on with the new version; the first start is the operator's.
	systemctl try-restart forebay.service
fi
