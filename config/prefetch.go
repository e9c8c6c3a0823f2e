package config

import (
	"errors"
	"slices"
	"time"

	"forebay/config/key"
	"forebay/config/parse"
)

// PrefetchSet is a list of images that are fetched before anybody pulls them.
type PrefetchSet struct {
	Name      string
	Images    []string      // names of images
	Files     []string      // that name images
	Platforms []string      // none: that of the machine
	Referrers bool          // signatures, SBOMs and attestations too
	Pin       bool          // what was fetched is not evicted
	Schedule  string        // cron expression; empty: only when somebody asks
	TimeZone  string        // of the schedule. Default UTC
	Jitter    time.Duration // how much later than due it begins at most. Default 5m
}

// prefetchField is the list of sets.
func prefetchField(p *[]PrefetchSet) field {
	return key.Mappings("prefetch",
		"Sets of images that are fetched before anybody pulls them, within the budget of their registries and never from its reserve. `forebay prefetch --set NAME` runs one at once.",
		p, PrefetchSet{Jitter: 5 * time.Minute}, (*PrefetchSet).fields)
}

func (s *PrefetchSet) fields() []field {
	return []field{
		{Name: "name", What: "a word", Doc: "Name of the set: letters, digits, `-`, `_` and `.`.",
			Set: key.Into(&s.Name, parse.Word), Get: func() []string { return []string{s.Name} }},
		key.Texts("images", &s.Images, "images", parse.ImageName, "Names of images, as clients write them."),
		{Name: "files", Kind: key.List, What: "a list of file names", File: true,
			Doc: "Files that name images: plain lists, Kubernetes manifests, Compose files, Dockerfiles, lock files, wanted lists. They are read at each run.",
			Set: func(text string) error {
				if text == "" {
					return errors.New("is empty: use the name of a file")
				}
				s.Files = append(s.Files, text)
				return nil
			},
			Clear: func() { s.Files = nil },
			Get:   func() []string { return s.Files }},
		key.Texts("platforms", &s.Platforms, "platforms", parse.Platform, "Platforms that are fetched, such as `linux/arm64`, or `all` alone. Default: that of the machine."),
		key.Bool("referrers", &s.Referrers, "Fetches signatures, SBOMs and attestations too."),
		key.Bool("pin", &s.Pin, "Pins what was fetched, so that it is not evicted; an image that leaves the set is let go."),
		{Name: "schedule", What: "a cron expression",
			Doc: "When the set is fetched: five fields (minute, hour, day of month, month, day of week) as in Kubernetes' CronJobs, or `@hourly`, `@daily`, `@weekly`, `@monthly`. Empty: only when somebody asks. A run that was missed while the mirror was down is made up for when it starts.",
			Set: key.Into(&s.Schedule, parse.Cron), Get: func() []string { return []string{s.Schedule} }},
		{Name: "time_zone", What: "a time zone",
			Doc: "Time zone of `schedule`, such as `Europe/Berlin`. Default: UTC. What is due in an hour that summer time leaves out is done an hour later; what is due in one that comes twice is done once.",
			Set: key.Into(&s.TimeZone, parse.Zone), Get: func() []string { return []string{s.TimeZone} }},
		key.Duration("jitter", &s.Jitter, 0, 12*time.Hour, "How much later than due a run begins at most, at random, so that not all mirrors ask at once; never more than a tenth of the time between two runs. Default: 5m."),
	}
}

// told reports whether a fault of a key is told already.
func (d *decoder) told(key string) bool {
	return slices.ContainsFunc(d.Faults, func(f Fault) bool { return f.Key == key })
}

// checkPrefetch finds what is missing in the sets, and names that are there twice.
func (d *decoder) checkPrefetch() {
	names := map[string]bool{}
	for i, s := range d.config.Prefetch {
		at := nth("prefetch", i)
		fault := func(format string, args ...any) { d.Add(d.config.origins[at], at, format, args...) }
		switch {
		case s.Name == "" && d.told(at+".name"):
		case s.Name == "":
			fault("needs a name")
		case names[s.Name]:
			fault("%s is there twice: give each set a name of its own", s.Name)
		case len(s.Images) == 0 && len(s.Files) == 0 && !d.told(at+".images"):
			fault("needs images or files")
		}
		if s.TimeZone != "" && s.Schedule == "" {
			fault("has a time_zone and no schedule")
		}
		if len(s.Platforms) > 1 {
			for _, p := range s.Platforms {
				if p == "all" {
					fault("platform all must be alone")
				}
			}
		}
		names[s.Name] = true
	}
}
