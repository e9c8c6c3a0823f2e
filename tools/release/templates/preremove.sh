#!/bin/sh
# Before removal, and before an upgrade: Debian says "upgrade", rpm counts what stays.
set -e

case "${1:-remove}" in
upgrade | failed-upgrade | deconfigure | 1) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl --no-reload disable --now forebay.service || true
elif command -v rc-service >/dev/null 2>&1; then
	rc-service --ifexists forebay stop || true
	rc-update -q del forebay || true
fi
