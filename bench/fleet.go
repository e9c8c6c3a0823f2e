//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
)

// fleetSettings are those of a mirror of a fleet; %s is where its engine is.
const fleetSettings = `fleet: {engine: "redis://%s", secret: 0123456789abcdef0123456789abcdef, listen: "127.0.0.1:0"}
`

// measureFleet compares cached manifests by tag of a mirror of a fleet, with a real engine, with those of one alone.
func measureFleet(ctx context.Context, b *bench) (_ []row, err error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr) // it has one
	cmd := command(ctx, "redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no")
	if errors.Is(cmd.Err, exec.ErrNotFound) {
		return nil, errors.New("redis-server is missing: install it with `make deps`")
	}
	engine, err := startProcess(ctx, "engine", b.dir, cmd, anyCPU)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, engine.stop()) }()
	return b.compareSettings(ctx, "of a fleet", fmt.Sprintf(fleetSettings, addr))
}
