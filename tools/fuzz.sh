#!/bin/sh
# Runs every fuzz target of the module for a number of inputs, which is the same work
# on every machine. Usage: tools/fuzz.sh [COUNT]
set -eu

count=${1:-20000}
go list ./... | while read -r package; do
	# The end-to-end tests have no fuzz targets and start daemons to be listed.
	case $package in */test/e2e) continue ;; esac
	for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		echo "$package $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "${count}x" "$package" </dev/null
	done
done
