package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"forebay/internal/command"
	"forebay/internal/nodesetup"
)

// nodeLook is how often node-setup looks whether its file is still there: k3s and rke2 write the
// folder anew when they start.
const nodeLook = 30 * time.Second

func newNodeSetup(p command.Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node-setup",
		Short: "Point the containerd of a machine at a mirror",
		Long: `Writes the mirror into the hosts.toml that the containerd of a machine (also that of k3s
and rke2) reads for all registries, after what is there already, and touches nothing else:
registries with a hosts.toml of their own keep it. It is read at every pull, so that nothing
is restarted. Where containerd would not read it, or would not start with it, nothing is
written, and it says what to change.

With --watch it stays, and takes back what it wrote when it is told to stop. So it runs in
the cluster, on each node (deploy/helm).`,
		Example: `  forebay node-setup --mirror http://mirror.lan:5000
  forebay node-setup --remove
  forebay node-setup --mirror http://127.0.0.1:5000 --root /host --watch`,
		Args: cobra.NoArgs,
	}
	var n nodesetup.Node
	cmd.Flags().StringVar(&n.Mirror, "mirror", "", "`URL` of the mirror, as the machine reaches it")
	cmd.Flags().StringVar(&n.Root, "root", "/", "`folder` where the file system of the machine is")
	remove := cmd.Flags().Bool("remove", false, "take back what was written")
	watch := cmd.Flags().Bool("watch", false, "stay, and take it back at the end")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *remove == (n.Mirror != "") {
			return command.Usage(errors.New("name the mirror with --mirror, or use --remove"))
		}
		tell := func(did string, f func() (string, bool, error)) error {
			file, changed, err := f()
			if err == nil && changed {
				_, err = fmt.Fprintf(p.Stdout, "%s %s\n", did, file)
			}
			return err
		}
		if *remove {
			return tell("mirror taken out of", n.Remove)
		}
		if err := tell("mirror written into", n.Install); err != nil || !*watch {
			return err
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		return errors.Join(keepWritten(ctx, func() error { return tell("mirror written again into", n.Install) }), tell("mirror taken out of", n.Remove))
	}
	return cmd
}

// keepWritten calls write now and then until ctx is done.
func keepWritten(ctx context.Context, write func() error) error {
	look := time.NewTicker(nodeLook)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			if err := write(); err != nil {
				return err
			}
		}
	}
}
