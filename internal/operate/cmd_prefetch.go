package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/signal"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/command"
	"forebay/internal/imageset"
	"forebay/internal/manifest"
	"forebay/internal/prefetch"
	"forebay/internal/terminal"
	"forebay/internal/wire"
)

// prefetchFlags are the flags of forebay prefetch.
type prefetchFlags struct {
	*adminclient.Flags
	list      imageList
	usage     *string
	set       *string
	platforms *[]string
	referrers *bool
	dryRun    *bool
	wait      *bool
	pin       *bool
	atOnce    *int
	progress  *string
}

func newPrefetch(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "prefetch [REF...] [-f FILE]",
		Short: "Fetch images before anybody pulls them",
		Long: `Fetches images whole, so that they can be pulled without their registries: through a
running server, or with --storage-dir straight into a storage folder that no server
uses. What is kept already is not asked for again, and what was begun is gone on with.

` + fileHelp + `

It keeps off the reserve of each registry's budget (upstreams.NAME.budget.reserve). When
no more is left it stops, or with --wait goes on when there is more.`,
		Example: `  forebay prefetch nginx:1.27 ghcr.io/owner/app:2
  helm template ./chart | forebay prefetch -f - --platform linux/amd64 --platform linux/arm64
  forebay prefetch -f compose.yaml --referrers --pin
  forebay prefetch -f images.lock --dry-run
  forebay prefetch --from-usage 30d --storage-dir /mnt/disk/forebay
  forebay prefetch --set base`,
	}
	flags := cmd.Flags()
	f := prefetchFlags{
		Flags:     adminclient.ServerOrFolderFlags(cmd, "fetch into this folder without a server, with the registries of the configuration"),
		list:      addImageList(cmd),
		usage:     flags.String("from-usage", "", "also what the server has served within this time, such as 30d"),
		set:       flags.String("set", "", "run this prefetch set of the server's configuration"),
		platforms: flags.StringArray("platform", nil, "platform of images that name none (default "+wire.MachinePlatform()+"); may be repeated; all for every platform"),
		referrers: flags.Bool("referrers", false, "signatures, SBOMs and attestations too"),
		dryRun:    flags.Bool("dry-run", false, "only tell what would be fetched: asks registries by HEAD, which costs no pull"),
		wait:      flags.Bool("wait", false, "wait while a registry limits us or only its reserve is left, rather than fail"),
		pin:       flags.Bool("pin", false, "pin what was fetched whole"),
		atOnce:    flags.Int("at-once", 3, "images that are fetched at the same time, up to 16"),
		progress:  flags.String("progress", "auto", "how to show progress on standard error: bars, lines, json, none, or auto: bars on a terminal, lines elsewhere"),
	}
	f.OutputFlag()
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch err := f.check(args); {
		case err != nil:
			return command.Usage(err)
		case f.Dir != "":
			return f.direct(cmd.Context(), p, args)
		}
		return f.OnServer(cmd.Context(), p, args, f.viaServer)
	}
	return cmd
}

// check finds what does not go together.
func (f prefetchFlags) check(args []string) error {
	named := len(args) > 0 || len(*f.list.files) > 0 || *f.usage != ""
	switch {
	case *f.set != "" && (named || f.Dir != "" || *f.dryRun):
		return errors.New("--set is run by the server as it is configured: it goes with no other images, --dry-run or --storage-dir")
	case *f.set == "" && !named:
		return errors.New("no image is named: name some as arguments, a file with -f, or a set with --set")
	case *f.atOnce < 1 || *f.atOnce > prefetch.AtOnceMost:
		return fmt.Errorf("--at-once is %d: use 1 to %d", *f.atOnce, prefetch.AtOnceMost)
	}
	if len(*f.platforms) > 1 && slices.Contains(*f.platforms, manifest.AllPlatforms) {
		return errors.New("--platform all goes with no other")
	}
	if err := manifest.CheckPlatforms(*f.platforms); err != nil {
		return fmt.Errorf("--platform: %w", err)
	}
	switch *f.progress {
	case "auto", "bars", "lines", "json", "none":
		return nil
	}
	return fmt.Errorf("--progress: %q is not usable: use auto, bars, lines, json or none", *f.progress)
}

func (f prefetchFlags) platformsOr() []string {
	if len(*f.platforms) == 0 {
		return []string{wire.MachinePlatform()}
	}
	return *f.platforms
}

// viaServer has a running server fetch.
func (f prefetchFlags) viaServer(ctx context.Context, o *adminclient.Client, args []string) error {
	v := terminal.NewView(o.Stderr, *f.progress)
	if *f.set != "" {
		return runSet(ctx, o, *f.set, v)
	}
	names, err := o.Names(ctx)
	if err != nil {
		return err
	}
	entries, err := f.entries(ctx, o, args, names)
	if err != nil {
		return err
	}
	job, err := o.Start(ctx, "/prefetch", admin.PrefetchRequest{
		Images: requested(entries), Platforms: f.platformsOr(), Referrers: *f.referrers, DryRun: *f.dryRun, Wait: *f.wait, Pin: *f.pin, AtOnce: *f.atOnce,
	})
	if err != nil {
		return err
	}
	var report admin.PrefetchReport
	if err := follow(ctx, o, job.ID, v, &report); err != nil {
		return err
	}
	return tellReport(o.Program, &report, o.AsJSON)
}

func (f prefetchFlags) entries(ctx context.Context, o *adminclient.Client, args []string, names *wire.Registries) ([]imageset.Entry, error) {
	entries, err := f.list.read(o.Program, args, names, f.platformsOr())
	if err != nil {
		return nil, err
	}
	if *f.usage != "" {
		age, err := parseAge(*f.usage)
		if err != nil {
			return nil, command.Usage(fmt.Errorf("--from-usage: %w", err))
		}
		used, err := used(ctx, o, age, names)
		if err != nil {
			return nil, err
		}
		entries = imageset.Unique(append(entries, used...))
		if len(entries) == 0 {
			return nil, command.Usage(fmt.Errorf("--from-usage: the server has served nothing in %s", *f.usage))
		}
	}
	return entries, isEmpty(entries, true)
}

// requested is how images are told to the server.
func requested(entries []imageset.Entry) []admin.PrefetchImage {
	list := make([]admin.PrefetchImage, len(entries))
	for i, e := range entries {
		list[i] = admin.PrefetchImage{Ref: e.Ref.String(), Platforms: e.Platforms, Blob: e.Blob, At: e.At.String()}
	}
	return list
}

// follow shows how far a prefetch is until it has ended.
func follow(ctx context.Context, o *adminclient.Client, id string, v *terminal.View, report *admin.PrefetchReport) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	defer v.Close()
	tick := time.NewTicker(adminclient.PollEvery)
	defer tick.Stop()
	for {
		var job admin.Job
		_, err := o.Ask(ctx, http.MethodGet, "/jobs/"+id, nil, nil, &job)
		if ctx.Err() != nil {
			return command.Hint(errors.New("interrupted"), "The server goes on. See it with forebay jobs, end it with forebay jobs --cancel "+id+".")
		}
		if err != nil {
			return err
		}
		switch job.State {
		case admin.Running:
			if job.Prefetch != nil {
				v.Show(*job.Prefetch)
			}
		case admin.Done:
			if err := json.Unmarshal(job.Result, report); err != nil {
				return fmt.Errorf("%s gives no answer of the admin API: %w", o.Address(), err)
			}
			v.Finish(report)
			return nil
		case admin.Cancelled:
			return fmt.Errorf("job %s was cancelled", id)
		default:
			return errors.New(terminal.Printable(job.Error))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// runSet has the server run a set, and waits for it.
func runSet(ctx context.Context, o *adminclient.Client, name string, v *terminal.View) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	defer v.Close()
	at := "/prefetch/" + path.Base("/"+name)
	var before admin.PrefetchSet
	if _, err := o.Ask(ctx, http.MethodGet, at, nil, nil, &before); err != nil {
		return err
	}
	if _, err := o.Ask(ctx, http.MethodPost, at+"/run", nil, struct{}{}, nil); err != nil {
		return err
	}
	tick := time.NewTicker(adminclient.PollEvery)
	defer tick.Stop()
	for {
		var s admin.PrefetchSet
		_, err := o.Ask(ctx, http.MethodGet, at, nil, nil, &s)
		if ctx.Err() != nil {
			return command.Hint(errors.New("interrupted"), "The server goes on with the set.")
		}
		if err != nil {
			return err
		}
		if s.Progress != nil {
			v.Show(*s.Progress)
		}
		if s.Last != nil && !s.Running && (before.Last == nil || s.Last.Started.After(before.Last.Started)) {
			v.Close()
			return tellRun(o, s)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// tellRun tells what became of the last run of a set.
func tellRun(o *adminclient.Client, s admin.PrefetchSet) error {
	last := s.Last
	if o.AsJSON {
		if err := terminal.WriteJSON(o.Stdout, last); err != nil {
			return err
		}
	} else if _, err := fmt.Fprintf(o.Stdout, "set %s: %s; %s of %s, %s, %s were there\n", s.Name, last.Outcome,
		terminal.Count(last.Fetched, "blob", "blobs"), terminal.Count(int64(last.Images), "image", "images"), terminal.Bytes(last.Bytes), terminal.Bytes(last.KeptBytes)); err != nil {
		return err
	}
	for _, image := range last.Faulty {
		fmt.Fprintf(o.Stderr, "%s: %s\n", image.Ref, terminal.Printable(image.Error))
	}
	text := last.Error
	if text == "" {
		text = terminal.Count(int64(len(last.Faulty)), "image is", "images are") + " not all there"
	}
	return outcome(last.Outcome, errors.New(terminal.Printable(text)))
}

// outcome is the error of how it ended, nil when all is there.
func outcome(o string, err error) error {
	switch o {
	case prefetch.OutcomeDone:
		return nil
	case prefetch.OutcomePartial:
		return command.Exit(command.ExitPartial, err)
	case prefetch.OutcomeLimited:
		return command.Exit(command.ExitLimited, command.Hint(err, "A registry limits us, or only the reserve of its budget is left. Try again later, or let it wait with --wait."))
	}
	return err
}

// direct fetches into a folder without a server.
func (f prefetchFlags) direct(ctx context.Context, p adminclient.Program, args []string) (err error) {
	fetching, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	folder, closeAll, err := f.OpenWorking(p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	entries, err := f.directEntries(ctx, p, args, folder.Names)
	if err != nil {
		return err
	}
	v := terminal.NewView(p.Stderr, *f.progress)
	defer v.Close()
	done, err := prefetch.Run(fetching, folder.Keeper, prefetch.Request{
		Images: entries, Platforms: f.platformsOr(), Referrers: *f.referrers, DryRun: *f.dryRun, Wait: *f.wait, Pin: *f.pin, AtOnce: *f.atOnce,
	}, func(s prefetch.Snapshot) { v.Show(s) })
	if err != nil {
		if fetching.Err() != nil {
			return command.Hint(errors.New("interrupted"), "What was fetched is kept: the same command goes on from there.")
		}
		return err
	}
	v.Finish(done)
	return tellReport(p, done, f.AsJSON)
}

// directEntries is entries where only --from-usage asks a server.
func (f prefetchFlags) directEntries(ctx context.Context, p adminclient.Program, args []string, names *wire.Registries) ([]imageset.Entry, error) {
	if *f.usage == "" {
		entries, err := f.list.read(p, args, names, f.platformsOr())
		if err != nil {
			return nil, err
		}
		return entries, isEmpty(entries, true)
	}
	server, err := f.Find(p)
	if err != nil {
		return nil, err
	}
	defer server.Close()
	return f.entries(ctx, server, args, names)
}

// tellReport writes what went wrong, what became of each image, and the sums.
func tellReport(p adminclient.Program, r *admin.PrefetchReport, asJSON bool) error {
	var bad []string
	for _, image := range r.Images {
		if image.Error == "" {
			continue
		}
		bad = append(bad, image.Ref)
		texts := []string{image.Error}
		for _, fault := range image.Failed {
			if fault.Error != image.Error {
				texts = append(texts, fault.Error)
			}
		}
		for i, text := range alike(texts) {
			if i == 0 {
				text = image.Ref + ": " + text
			} else {
				text = "  " + text
			}
			fmt.Fprintln(p.Stderr, text)
		}
	}
	if asJSON {
		if err := terminal.WriteJSON(p.Stdout, r); err != nil {
			return err
		}
	} else if err := reportTable(p, r); err != nil {
		return err
	}
	if r.Outcome == prefetch.OutcomeDone {
		return nil
	}
	const named = 3
	names := strings.Join(bad[:min(len(bad), named)], ", ")
	if len(bad) > named {
		names += fmt.Sprintf(" and %d more", len(bad)-named)
	}
	return outcome(r.Outcome, fmt.Errorf("of %s, %d not all there: %s", terminal.Count(int64(len(r.Images)), "image", "images"), len(bad), names))
}

// ofOne is what differs between the faults of one cause: of which part it is, how it was asked for, how often.
var ofOne = regexp.MustCompile(`\w+:[0-9a-f]{40,}|(get|head|stat) blob|[0-9]+`)

// alike returns faults as people read them, each cause once.
func alike(texts []string) (told []string) {
	var causes []string
	more := map[string]int{}
	for _, text := range texts {
		cause := ofOne.ReplaceAllString(text, "")
		if more[cause]++; more[cause] == 1 {
			causes, told = append(causes, cause), append(told, terminal.Printable(text))
		}
	}
	for i, cause := range causes {
		if n := more[cause] - 1; n > 0 {
			told[i] += fmt.Sprintf(" (%d more of its parts alike: --json names them)", n)
		}
	}
	return told
}

func reportTable(p adminclient.Program, r *admin.PrefetchReport) error {
	fetched := "FETCHED"
	if r.DryRun {
		fetched = "TO FETCH"
	}
	t := terminal.NewTable(p.Stdout, "IMAGE", "STATE", "PULLS", fetched, "KEPT", "NOTE")
	for _, image := range r.Images {
		note := ""
		switch {
		case image.MovedTo != "":
			note = "the tag has moved to " + image.MovedTo[:min(len(image.MovedTo), 19)]
		case image.Pinned:
			note = "pinned"
		}
		t.Row(image.Ref, string(image.State), fmt.Sprint(image.Pulls), atLeast(image.Bytes, image.More), terminal.Bytes(image.KeptBytes), note)
	}
	t.Row(terminal.Count(int64(len(r.Images)), "image", "images"), r.Outcome, fmt.Sprint(r.Pulls), atLeast(r.Bytes, r.More), terminal.Bytes(r.KeptBytes))
	return t.Flush()
}

func atLeast(n int64, more bool) string {
	if more && n == 0 {
		return "unknown"
	}
	if more {
		return terminal.Bytes(n) + " or more"
	}
	return terminal.Bytes(n)
}
