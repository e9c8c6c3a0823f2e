// Command stargz is the snapshotter that mounts layers of the format eStargz before they are there, as
// a program of its own beside containerd: what containerd-stargz-grpc is, whose module is not to be had.
// It also makes such layers.
//
//	stargz serve SOCKET ROOT CONFIG   answers containerd
//	stargz convert LAYER FILE         writes a layer as eStargz, and prints its DiffID and the digest of its table of contents
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/service"
	"github.com/pelletier/go-toml/v2"
	"google.golang.org/grpc"
)

func main() {
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 4 && args[0] == "serve":
		err = serve(args[1], args[2], args[3])
	case len(args) == 3 && args[0] == "convert":
		err = convert(args[1], args[2])
	default:
		err = errors.New("stargz serve SOCKET ROOT CONFIG, or: stargz convert LAYER FILE")
	}
	if err != nil {
		log.Fatal(err)
	}
}

// serve answers at a socket until it is told to end, and unmounts what it has mounted.
func serve(socket, root, file string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var config service.Config
	if err := toml.Unmarshal(text, &config); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := service.Supported(root); err != nil {
		return err
	}
	snapshotter, err := service.NewStargzSnapshotterService(ctx, root, &config)
	if err != nil {
		return err
	}
	defer snapshotter.Close()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(snapshotter))
	context.AfterFunc(ctx, server.Stop)
	return server.Serve(listener)
}

// convert takes a layer as it is, or compressed by gzip or zstd.
func convert(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	layer, err := estargz.Build(io.NewSectionReader(in, 0, info.Size()), estargz.WithCompressionLevel(1))
	if err != nil {
		return err
	}
	defer layer.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, layer)
	if err := errors.Join(err, out.Close(), layer.Close()); err != nil {
		return err
	}
	fmt.Println(layer.DiffID(), layer.TOCDigest())
	return nil
}
