#!/bin/sh
# After removal. What was pulled stays until the package is purged, which Debian alone has: it can
# be pulled again, but perhaps not soon.
set -e

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
fi
if [ "${1:-}" = purge ]; then
	rm -rf /var/lib/forebay /etc/forebay
	if command -v deluser >/dev/null 2>&1; then
		deluser --quiet --system forebay >/dev/null 2>&1 || true
	elif command -v userdel >/dev/null 2>&1; then
		userdel forebay >/dev/null 2>&1 || true
	fi
fi
