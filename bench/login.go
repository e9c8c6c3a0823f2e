//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// What a client shows whom the mirror knows.
const (
	loginUser     = "bench"
	loginPassword = "a password that is long enough"
)

// measureLogin compares cached manifests of a mirror that knows its clients, by a password and by a token,
// with those of one that does not ask.
func measureLogin(ctx context.Context, b *bench) (rows []row, err error) {
	auth, token, err := b.credentials(ctx)
	if err != nil {
		return nil, err
	}
	basic := &http.Request{Header: http.Header{}}
	basic.SetBasicAuth(loginUser, loginPassword)
	shown := []string{"", basic.Header.Get("Authorization"), "Bearer " + token}
	err = b.withMirror(ctx, mirrorOptions{on: firstCPU, noAccessLog: true}, func(open *mirror) error {
		return b.withMirror(ctx, mirrorOptions{on: firstCPU, noAccessLog: true, more: auth, shows: shown[2]}, func(known *mirror) error {
			got, err := b.rateManifest(ctx, "cached manifest with a login", asked{open, ""}, asked{known, shown[1]}, asked{known, shown[2]})
			if err != nil {
				return err
			}
			if err := answersTo(ctx, known.url+got.path, ""); err == nil {
				return errors.New("the mirror that knows its clients serves others, too")
			}
			for i, how := range []string{"a password (htpasswd)", "a token"} {
				name := "cached manifest by tag with " + how
				rows = append(rows,
					row{name: name + ": requests per second", form: "%.0f", unit: "/s", ours: got.of[i+1].rate, theirs: got.of[0].rate, against: "without", compare: ratio, target: atLeast(0.85)},
					row{name: name + ": CPU per request", form: "%.1f", unit: "µs", ours: got.of[i+1].cost, theirs: got.of[0].cost, against: "without", compare: ratio})
			}
			return nil
		})
	})
	return rows, err
}

// credentials makes files of a user and of a token, and returns the settings that name them.
func (b *bench) credentials(ctx context.Context) (settings, token string, err error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(loginPassword), bcrypt.DefaultCost)
	if err != nil {
		return "", "", err
	}
	users, tokens := filepath.Join(b.dir, "htpasswd"), filepath.Join(b.dir, "tokens")
	if err := os.WriteFile(users, fmt.Appendf(nil, "%s:%s\n", loginUser, hash), 0o600); err != nil {
		return "", "", err
	}
	if err := os.Remove(tokens); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", "", err
	}
	out, err := exec.CommandContext(ctx, b.forebay, "token", "create", loginUser+"-token", "--file", tokens).Output()
	if err != nil {
		return "", "", fmt.Errorf("make a token: %w", err)
	}
	settings = fmt.Sprintf("auth: {htpasswd_file: %q, tokens_file: %q}\naccess: [{who: [known]}, {deny: true}]\n", users, tokens)
	return settings, strings.TrimSpace(string(out)), nil
}

// asked is a mirror that is asked for a manifest, and what is shown for it.
type asked struct {
	*mirror
	authorization string
}

// ratedManifest is how fast each that was asked gave the manifest at a path.
type ratedManifest struct {
	path string
	of   []rated
}

// rateManifest has all of them asked for a cached manifest by tag in turns.
func (b *bench) rateManifest(ctx context.Context, what string, all ...asked) (got ratedManifest, err error) {
	load, img, err := b.loadBeside(ctx)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, load.stop()) }()
	got.path, got.of = "/v2/"+repository+"/manifests/"+img.Tag, make([]rated, len(all))
	measures := make([]func(int) error, len(all))
	for i, one := range all {
		if err := answersTo(ctx, one.url+got.path, one.authorization); err != nil {
			return got, err
		}
		h := hammer{Addr: hostOf(one.url), Path: got.path, Accept: manifestAccept, Authorization: one.authorization, Connections: 16, Seconds: pick(b, 4.0, 1)}
		measures[i] = func(int) error { return rate(one.process, load, h, &got.of[i]) }
	}
	return got, b.takeTurns(ctx, what, measures...)
}

// answersTo reports whether a server answers 200 to who shows that.
func answersTo(ctx context.Context, url, authorization string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, response.Status)
	}
	return nil
}
