package prefetch

import (
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Schedule says when something is due: by the clock on the wall of a time zone.
type Schedule struct {
	spec cron.Schedule
	zone *time.Location
}

// ParseSchedule reads a cron expression of five fields, or one of @hourly, @daily,
// @weekly, @monthly and @yearly, in a time zone of the IANA database; "" is UTC. The
// expressions are those of Kubernetes' CronJobs.
func ParseSchedule(expression, zone string) (*Schedule, error) {
	// The parser takes a zone in front of the expression, and panics at one without it.
	if strings.Contains(expression, "=") || strings.HasPrefix(expression, "@every") {
		return nil, fmt.Errorf("schedule %q: use five fields, such as 0 3 * * *, or @daily", expression)
	}
	spec, err := cron.ParseStandard(expression)
	if err != nil {
		return nil, fmt.Errorf("schedule %q: %w", expression, err)
	}
	if zone == "" {
		zone = "UTC"
	}
	location, err := time.LoadLocation(zone)
	if err != nil || zone == "Local" {
		return nil, fmt.Errorf("time zone %q is not known: use a name such as Europe/Berlin", zone)
	}
	s := &Schedule{spec: spec, zone: location}
	if s.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, fmt.Errorf("schedule %q is never due: there is no such day", expression)
	}
	return s, nil
}

// Next returns when it is due for the first time after t; zero if it never is. What is due
// in an hour that is left out in spring is due as much later as that hour is long, and what
// is due in one that comes twice in autumn is due once: so what is daily is so every day.
func (s *Schedule) Next(t time.Time) time.Time {
	at := t.In(s.zone)
	wall := time.Date(at.Year(), at.Month(), at.Day(), at.Hour(), at.Minute(), at.Second(), 0, time.UTC)
	for range 1000 {
		if wall = s.spec.Next(wall); wall.IsZero() {
			return time.Time{}
		}
		due := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), 0, s.zone)
		if due.After(t) {
			return due
		}
	}
	return time.Time{}
}
