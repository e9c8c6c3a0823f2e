package operate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"forebay/config"
	"forebay/config/unit"
	"forebay/internal/access"
	"forebay/internal/authn"
	"forebay/internal/command"
	"forebay/internal/terminal"
)

func newToken(p command.Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Give out and withdraw tokens for clients",
		Long: `Tokens stand in a file of hashes, which auth.tokens_file names. A token is shown once,
when it is made. Clients show it as a bearer token, or as the password of any user.
The server reads the file again when it changes.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTokenCreate(p), newTokenList(p), newTokenRevoke(p), newTokenKubelet(p))
	return cmd
}

// tokenFile adds the flags that say which file it is about.
func tokenFile(cmd *cobra.Command, p command.Process) func() (string, error) {
	file := cmd.Flags().String("file", "", "file of the tokens (default: auth.tokens_file of the configuration)")
	load := command.ConfigFlags(cmd, p, command.NoSettings)
	return func() (string, error) {
		if *file != "" {
			return *file, nil
		}
		c, err := load("")
		if err != nil {
			return "", err
		}
		if c.Auth.TokensFile == "" {
			return "", command.Usage(errors.New("auth.tokens_file is not set: set it, or name a file with --file"))
		}
		return c.Auth.TokensFile, nil
	}
}

func newTokenCreate(p command.Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a token and print it",
		Example: `  forebay token create ci-runner --group builders --expires 90d
  forebay token create laptop --file /etc/forebay/tokens`,
		Args: cobra.ExactArgs(1),
	}
	find := tokenFile(cmd, p)
	groups := cmd.Flags().StringArray("group", nil, "group that the token belongs to (may be repeated)")
	expires := cmd.Flags().String("expires", "", "how long it holds, such as 90d (default: until it is revoked)")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		var until time.Time
		if *expires != "" {
			d, err := unit.ParseDuration(*expires)
			if err != nil || d <= 0 {
				return command.Usage(fmt.Errorf("--expires: %q is no time to hold: use one such as 12h or 90d", *expires))
			}
			until = time.Now().Add(d).Truncate(time.Second)
		}
		file, err := find()
		if err != nil {
			return err
		}
		secret, made, err := authn.NewToken(args[0], *groups, until)
		if err != nil {
			return command.Usage(err)
		}
		err = changeTokens(file, func(all []authn.Token) ([]authn.Token, error) {
			if slices.ContainsFunc(all, func(t authn.Token) bool { return t.Name == made.Name }) {
				return nil, fmt.Errorf("there is a token %q already: revoke it first, or choose another name", made.Name)
			}
			return append(all, made), nil
		})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(p.Stdout, secret)
		return err
	}
	return cmd
}

func newTokenList(p command.Process) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the tokens that were given out", Args: cobra.NoArgs}
	find := tokenFile(cmd, p)
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(*cobra.Command, []string) error {
		file, err := find()
		if err != nil {
			return err
		}
		all, err := readTokens(file)
		if err != nil {
			return err
		}
		if *asJSON {
			type line struct {
				Name    string     `json:"name"`
				Expires *time.Time `json:"expires,omitempty"`
				Groups  []string   `json:"groups"`
			}
			list := make([]line, len(all))
			for i, t := range all {
				list[i] = line{Name: t.Name, Groups: append([]string{}, t.Groups...)}
				if !t.Expires.IsZero() {
					list[i].Expires = &t.Expires
				}
			}
			return terminal.WriteJSON(p.Stdout, list)
		}
		table := terminal.NewTable(p.Stdout, "NAME", "EXPIRES", "GROUPS")
		for _, t := range all {
			expires := "never"
			switch {
			case t.Expires.IsZero():
			case time.Now().Before(t.Expires):
				expires = t.Expires.UTC().Format(time.DateTime)
			default:
				expires = "expired " + t.Expires.UTC().Format(time.DateTime)
			}
			table.Row(t.Name, expires, terminal.OrDash(strings.Join(t.Groups, ", ")))
		}
		return table.Flush()
	}
	return cmd
}

func newTokenRevoke(p command.Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke NAME",
		Short: "Withdraw a token",
		Long: `Withdraws a token. It is refused within a second; what a client got for it at the
mirror's token endpoint holds for five minutes more.`,
		Args: cobra.ExactArgs(1),
	}
	find := tokenFile(cmd, p)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		file, err := find()
		if err != nil {
			return err
		}
		return changeTokens(file, func(all []authn.Token) ([]authn.Token, error) {
			left := slices.DeleteFunc(slices.Clone(all), func(t authn.Token) bool { return t.Name == args[0] })
			if len(left) == len(all) {
				return nil, fmt.Errorf("there is no token %q in %q: see forebay token list", args[0], file)
			}
			return left, nil
		})
	}
	return cmd
}

// readTokens reads a tokens file; one that is not there has none.
func readTokens(file string) ([]authn.Token, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := authn.ParseTokens(text)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", file, err)
	}
	return all, nil
}

// changeTokens writes a tokens file anew, in one step, so that a server never reads half of it.
func changeTokens(file string, change func([]authn.Token) ([]authn.Token, error)) (err error) {
	all, err := readTokens(file)
	if err != nil {
		return err
	}
	if all, err = change(all); err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(file), ".tokens-*") // for its owner alone
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, out.Close(), os.Remove(out.Name()))
		}
	}()
	if info, err := os.Stat(file); err == nil { // of whom the server reads it as
		if err := keepOwner(out, info); err != nil {
			return err
		}
	}
	for i := range all {
		if _, err := fmt.Fprintln(out, &all[i]); err != nil {
			return err
		}
	}
	if err := errors.Join(out.Sync(), out.Close()); err != nil {
		return err
	}
	return os.Rename(out.Name(), file)
}

// Explain returns by which rule of a configuration an identity may have an image, or may not, and
// what its repository is called in rules.
type Explain func(c *config.Config, id authn.Identity, image string) (d access.Decision, name string, err error)

func newAccess(p command.Process, explain Explain) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "access",
		Short: "Tell who may pull what",
		Long: `Who may pull what is said by auth and access in the configuration: who a client is, and
the first rule that matches it and the repository. What a client may not have looks to it
as if it did not exist.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newAccessExplain(p, explain))
	return cmd
}

func newAccessExplain(p command.Process, explain Explain) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain WHO IMAGE",
		Short: "Tell which rule decides whether somebody may pull an image",
		Long: `Reads the configuration as the server does and tells which rule of access decides. WHO
is the name of a user or token, network:NAME, certificate:NAME, or nobody. Nothing is
contacted. It fails (exit code 1) if the image is denied.`,
		Example: `  forebay access explain alice ghcr.io/teama/app:1
  forebay access explain nobody nginx
  forebay access explain system:serviceaccount:prod:puller quay.io/prod/app --group prod`,
		Args: cobra.ExactArgs(2),
	}
	load := command.ConfigFlags(cmd, p, command.NoSettings)
	groups := cmd.Flags().StringArray("group", nil, "group that a token or issuer says WHO belongs to (may be repeated)")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		c, err := load("")
		if err != nil {
			return err
		}
		if !c.Restricted() && !c.Asks() {
			_, err := fmt.Fprintln(p.Stdout, "allowed: clients are not told apart, since neither access nor auth is set")
			return err
		}
		id := identityOf(args[0], *groups, c)
		d, name, err := explain(c, id, args[1])
		if err != nil {
			return command.Usage(err)
		}
		who := args[0]
		if len(id.Groups) > 0 {
			who += " of " + strings.Join(id.Groups, ", ")
		}
		switch {
		case d.Ask:
			_, err := fmt.Fprintf(p.Stdout, "asked: %s, %s by %s\n", who, name, d.Rule)
			return err
		case !d.Allowed:
			return fmt.Errorf("denied: %s, %s by %s", who, name, d.Rule)
		}
		_, err = fmt.Fprintf(p.Stdout, "allowed: %s, %s by %s\n", who, name, d.Rule)
		return err
	}
	return cmd
}

// identityOf returns the identity that goes by a name, with the groups of the configuration.
func identityOf(who string, groups []string, c *config.Config) authn.Identity {
	if who == "nobody" {
		return authn.Identity{}
	}
	id := authn.Identity{Name: who, By: authn.ByPassword, Groups: groups}
	for _, way := range []authn.Way{authn.ByNetwork, authn.ByCertificate} {
		if name, ok := strings.CutPrefix(who, string(way)+":"); ok {
			id.Name, id.By = name, way
		}
	}
	for group, members := range c.Auth.Groups {
		if slices.Contains(members, authn.Qualified(id)) {
			id.Groups = append(id.Groups, group)
		}
	}
	slices.Sort(id.Groups)
	return id
}
