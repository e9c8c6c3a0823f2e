package operate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"forebay/internal/command"
	"forebay/internal/terminal"
	"forebay/upstream"
	"forebay/upstream/hubapi"
)

// limitImage is the image that Docker names for asking what is left
// (hub manual, "Docker Hub pull usage and limits", "View pull rate and limit").
const limitImage = "ratelimitpreview/test:latest"

func newHubLimits(p Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "limits",
		Short: "Say how many pulls Docker Hub will still give",
		Long: `Asks Docker Hub how many pulls are left for the configured credentials, or for this
machine's address without any, and how many requests its web API will still answer. It
is one HEAD of an image, which is no pull, and one request to the API.`,
		Example: `  forebay hub limits
  forebay hub limits --image library/alpine:3 --json`,
		Args: cobra.NoArgs,
	}
	flags := addHubFlags(cmd, p)
	image := cmd.Flags().String("image", limitImage, "the image to ask for by HEAD")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		repo, tag, err := hubName(*image)
		if err != nil {
			return command.Usage(fmt.Errorf("--image: %w", err))
		}
		o, api, err := flags.open(p)
		if err != nil {
			return err
		}
		defer api.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), hubTimeout)
		defer cancel()
		doc, err := askLimits(ctx, o, api, repo, cmp.Or(tag, "latest"))
		if err != nil {
			return err
		}
		if *flags.json {
			return terminal.WriteJSON(p.Stdout, doc)
		}
		return doc.write(p.Stdout)
	}
	return cmd
}

// limitsDoc is what Docker Hub says of its limits, as JSON.
type limitsDoc struct {
	Pulls    []pullLimit `json:"pulls"` // empty: it tells of no limit
	API      *apiLimit   `json:"api,omitempty"`
	APIError string      `json:"api_error,omitempty"` // in place of api
}

type pullLimit struct {
	Credential string `json:"credential"`           // user name, or "anonymous"
	Limit      *int64 `json:"limit,omitempty"`      // pulls in a window
	Remaining  *int64 `json:"remaining,omitempty"`  // pulls left
	WindowS    int64  `json:"window_s,omitempty"`   // seconds
	ChargedTo  string `json:"charged_to,omitempty"` // address or account, as Docker Hub writes it
	Paused     string `json:"paused,omitempty"`     // why no pull goes through at present
}

type apiLimit struct {
	Limit     int       `json:"limit"`
	Remaining int       `json:"remaining"`
	Reset     time.Time `json:"reset"`
}

// askLimits asks the registry by one HEAD of repo:tag, and the API by one request. What
// the API does not answer is no reason to keep quiet about pulls.
func askLimits(ctx context.Context, o upstream.Options, api *hubapi.Client, repo, tag string) (limitsDoc, error) {
	r, err := upstream.New(o)
	if err != nil {
		return limitsDoc{}, command.Usage(err)
	}
	defer r.Close()
	_, err = r.Resolve(ctx, repo, tag)
	doc := limitsDoc{Pulls: []pullLimit{}}
	for _, b := range r.Budget() {
		doc.Pulls = append(doc.Pulls, pullLimit{
			Credential: b.Credential, Limit: numberOrNil(b.Limit), Remaining: numberOrNil(b.Remaining),
			WindowS: int64(b.Window / time.Second), ChargedTo: b.Source, Paused: b.Why,
		})
	}
	if err != nil && len(doc.Pulls) == 0 {
		return limitsDoc{}, err
	}
	if _, err := api.Tag(ctx, "library/hello-world", "latest"); err != nil {
		doc.APIError = err.Error()
	}
	if b := api.Budget(); b.Limit >= 0 && b.Remaining >= 0 {
		doc.API, doc.APIError = &apiLimit{b.Limit, b.Remaining, b.Reset.UTC()}, ""
	}
	return doc, nil
}

// numberOrNil returns nil for a number that was not told.
func numberOrNil(n int64) *int64 {
	if n < 0 {
		return nil
	}
	return &n
}

func (d limitsDoc) write(w io.Writer) error {
	var err error
	line := func(format string, args ...any) {
		_, e := fmt.Fprintf(w, format+"\n", args...)
		err = errors.Join(err, e)
	}
	if len(d.Pulls) == 0 {
		line("pulls: no limit is told, as for paid accounts")
	}
	for _, p := range d.Pulls {
		line("pulls as %s: %s", p.Credential, p)
	}
	switch {
	case d.API != nil:
		line("web API: %d of %d requests left until %s", d.API.Remaining, d.API.Limit, d.API.Reset.Format(time.TimeOnly+" MST"))
	case d.APIError != "":
		line("web API: %s", d.APIError)
	}
	return err
}

func (p pullLimit) String() string {
	number := func(n *int64) string {
		if n == nil {
			return "?"
		}
		return fmt.Sprint(*n)
	}
	s := fmt.Sprintf("%s of %s left", number(p.Remaining), number(p.Limit))
	if p.WindowS > 0 {
		s += " in each " + (time.Duration(p.WindowS) * time.Second).String()
	}
	if p.ChargedTo != "" {
		s += ", charged to " + p.ChargedTo
	}
	if p.Paused != "" {
		s += "; " + p.Paused
	}
	return s
}
