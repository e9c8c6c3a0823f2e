package config

import (
	"strings"
	"testing"
)

func TestFleet(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 2)
	c := mustLoad(t, "fleet: {engine: 'sentinel://a,b/forebay', password: p, secret: "+long+"}")
	if c.Fleet.Engine != "sentinel://a,b/forebay" || c.Fleet.Secret.Reveal() != long {
		t.Errorf("Fleet = %+v", c.Fleet)
	}
	for text, want := range map[string]string{
		"fleet: {engine: 'http://a', secret: " + long + "}":      "fleet.engine",
		"fleet: {engine: 'valkey://a'}":                          "set fleet.secret_file",
		"fleet: {engine: 'valkey://a', secret: short}":           "want at least 32",
		"fleet: {secret: " + long + "}":                          "set fleet.engine",
		"fleet: {engine: 'valkey://:p@a', secret: " + long + "}": "password_file",
	} {
		_, err := load(t, text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), long) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
