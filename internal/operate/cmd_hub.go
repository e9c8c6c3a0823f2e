package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"forebay/config"
	"forebay/internal/command"
	"forebay/internal/registries"
	"forebay/internal/terminal"
	"forebay/internal/wire"
	"forebay/upstream"
	"forebay/upstream/hubapi"
)

// hubTimeout bounds a command that asks Docker Hub, with the wait for a spent budget.
const hubTimeout = 5 * time.Minute

func newHub(p Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hub",
		Short: "Ask Docker Hub about tags and limits",
		Long: `Asks Docker Hub itself, with the credentials, the proxy and the certificates that the
configuration has for docker.io. Nothing here costs a pull.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newHubTags(p), newHubLimits(p))
	return cmd
}

// hubFlags are the flags of all commands below hub.
type hubFlags struct {
	load   func(file string) (*config.Config, error)
	apiURL *string
	json   *bool
}

func addHubFlags(cmd *cobra.Command, p Program) hubFlags {
	return hubFlags{
		load:   command.ConfigFlags(cmd, p.Process, command.NoSettings),
		apiURL: cmd.Flags().String("api-url", hubapi.DefaultURL, "base URL of Docker Hub's web API"),
		json:   cmd.Flags().Bool("json", false, "write JSON"),
	}
}

// options returns how docker.io is reached: as configured, else anonymously.
func (f hubFlags) options(p Program) (upstream.Options, error) {
	c, err := f.load("")
	if err != nil {
		return upstream.Options{}, err
	}
	u := c.Upstream("docker.io")
	if u == nil {
		u = &config.Upstream{Name: "docker.io"}
	}
	// Only what goes wrong is worth a line beside the answer.
	settings := c.Log
	if settings.Level != config.LevelDebug {
		settings.Level = config.LevelWarn
	}
	return p.RegistryOptions(u, settings), nil
}

func (f hubFlags) api(o upstream.Options) (*hubapi.Client, error) {
	c, err := hubapi.New(hubapi.Options{URL: *f.apiURL, Registry: o, MaxWait: 2 * time.Minute})
	if err != nil {
		return nil, command.Usage(fmt.Errorf("--api-url: %w", err))
	}
	return c, nil
}

// open returns how docker.io is reached and a client of its web API, which the caller closes.
func (f hubFlags) open(p Program) (upstream.Options, *hubapi.Client, error) {
	o, err := f.options(p)
	if err != nil {
		return o, nil, err
	}
	c, err := f.api(o)
	return o, c, err
}

func newHubTags(p Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tags NAME[:TAG]",
		Short: "List the tags of a repository, the latest change first",
		Long: `Lists the tags of a repository at Docker Hub, the latest change first, with when each
changed and what it points to. With a tag it shows that tag and its platforms. Docker
Hub's web API is asked, which may lag behind the registry by a moment; 100 tags cost one
of its 180 requests a minute.`,
		Example: `  forebay hub tags nginx
  forebay hub tags nginx:1.27
  forebay hub tags grafana/grafana --most 0 --json`,
		Args: cobra.ExactArgs(1),
	}
	flags := addHubFlags(cmd, p)
	most := cmd.Flags().Int("most", 25, "how many tags to list at most; 0 lists all")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		repo, tag, err := hubName(args[0])
		if err != nil {
			return command.Usage(err)
		}
		if *most < 0 {
			return command.Usage(errors.New("--most must not be negative"))
		}
		_, api, err := flags.open(p)
		if err != nil {
			return err
		}
		defer api.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), hubTimeout)
		defer cancel()
		var tags []hubapi.Tag
		if tag != "" {
			var one hubapi.Tag
			one, err = api.Tag(ctx, repo, tag)
			tags = []hubapi.Tag{one}
		} else {
			tags, err = api.Tags(ctx, repo, *most)
		}
		if err != nil {
			return err
		}
		if *flags.json {
			return terminal.WriteJSON(p.Stdout, tagDocs(tags))
		}
		return writeTags(p.Stdout, tags, tag != "")
	}
	return cmd
}

// hubName reads the name of a repository of Docker Hub as people write it, perhaps with a tag.
func hubName(s string) (repo, tag string, err error) {
	repo, tag, _ = strings.Cut(s, ":")
	for _, host := range append(registries.HubAliases(), registries.Hub) {
		repo = strings.TrimPrefix(repo, host+"/")
	}
	if !strings.Contains(repo, "/") {
		repo = "library/" + repo
	}
	if strings.Count(repo, "/") != 1 || !wire.ValidRepository(repo) || tag != "" && !wire.ValidTag(tag) || strings.HasSuffix(s, ":") {
		return "", "", fmt.Errorf("%q is no repository of Docker Hub: use NAME, NAMESPACE/NAME, or one with :TAG", s)
	}
	return repo, tag, nil
}

// tagDoc is a tag as JSON.
type tagDoc struct {
	Name        string     `json:"name"`
	Digest      string     `json:"digest,omitempty"`
	MediaType   string     `json:"media_type,omitempty"`
	Size        int64      `json:"size,omitempty"` // bytes of the layers of one platform
	LastUpdated *time.Time `json:"last_updated,omitempty"`
	LastPushed  *time.Time `json:"last_pushed,omitempty"`
	LastPulled  *time.Time `json:"last_pulled,omitempty"`
	Images      []imageDoc `json:"images"`
}

type imageDoc struct {
	Platform string `json:"platform"`
	Digest   string `json:"digest,omitempty"`
	Size     int64  `json:"size,omitempty"`
}

func tagDocs(tags []hubapi.Tag) []tagDoc {
	docs := make([]tagDoc, len(tags))
	for i, t := range tags {
		d := tagDoc{
			Name: t.Name, MediaType: t.MediaType, Size: t.Size, Images: make([]imageDoc, len(t.Images)),
			LastUpdated: timeOrNil(t.LastUpdated), LastPushed: timeOrNil(t.LastPushed), LastPulled: timeOrNil(t.LastPulled),
		}
		if t.Digest.Hex != "" {
			d.Digest = t.Digest.String()
		}
		for n, image := range t.Images {
			d.Images[n] = imageDoc{Platform: image.Platform, Size: image.Size}
			if image.Digest.Hex != "" {
				d.Images[n].Digest = image.Digest.String()
			}
		}
		docs[i] = d
	}
	return docs
}

// timeOrNil returns nil for a time that was not told.
func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func writeTags(w io.Writer, tags []hubapi.Tag, platforms bool) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TAG\tUPDATED\tSIZE\tDIGEST\tPLATFORMS")
	for _, t := range tags {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", t.Name, day(t.LastUpdated), size(t.Size), t.Digest.Hex, platformsOf(t))
		if !platforms {
			continue
		}
		for _, image := range t.Images {
			fmt.Fprintf(table, "  %s\t\t%s\t%s\t\n", image.Platform, size(image.Size), image.Digest.Hex)
		}
	}
	return table.Flush()
}

func day(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04")
}

func size(n int64) string {
	if n <= 0 {
		return "-"
	}
	return humanize.IBytes(uint64(n))
}

// platformsOf lists the platforms of a tag once each, without attestations, whose
// platform is unknown.
func platformsOf(t hubapi.Tag) string {
	var all []string
	for _, image := range t.Images {
		if !strings.HasPrefix(image.Platform, "unknown/") && !slices.Contains(all, image.Platform) {
			all = append(all, image.Platform)
		}
	}
	return strings.Join(all, " ")
}
