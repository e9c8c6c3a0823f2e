// Package gcp gets the passwords of Google's registries, *.pkg.dev and gcr.io, from the metadata server: of the
// service account of the machine, or of the Kubernetes service account that Workload Identity binds to
// one. Each lives for an hour at most.
package gcp

import (
	"cmp"
	"context"
	"net/http"
	"os"
	"time"

	"go.uber.org/zap"

	"forebay/upstream/issue"
)

// Options configures [New]. Registry is required.
type Options struct {
	Registry string
	Log      *zap.Logger
	Now      func() time.Time // replaces the clock
}

// userName stands for an access token as password (Artifact Registry, "Configure authentication to
// Artifact Registry for Docker").
const userName = "oauth2accesstoken"

// New returns what hands out the passwords of a registry. Nothing is contacted.
func New(o Options) *issue.Issuer {
	now := o.Now
	if now == nil {
		now = time.Now
	}
	return issue.New(issue.Options{Registry: o.Registry, Log: o.Log, Now: o.Now, Fetch: func(ctx context.Context) (issue.Password, error) {
		var reply struct {
			Token   string  `json:"access_token"`
			Seconds float64 `json:"expires_in"`
		}
		host := cmp.Or(os.Getenv("GCE_METADATA_HOST"), "metadata.google.internal") // as all of Google's libraries have it
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/computeMetadata/v1/instance/service-accounts/default/token", nil)
		if err != nil {
			return issue.Password{}, err
		}
		req.Header.Set("Metadata-Flavor", "Google")
		if err := issue.Direct(req, &reply); err != nil {
			return issue.Password{}, err
		}
		return issue.Password{User: userName, Secret: reply.Token, Until: now().Add(time.Duration(reply.Seconds * float64(time.Second)))}, nil
	}})
}
