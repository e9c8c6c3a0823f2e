package carry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"forebay/internal/adminclient"
	"forebay/internal/command"
	"forebay/internal/govern"
	"forebay/internal/terminal"
	"forebay/internal/wire"
)

// short is the beginning of a digest, which tells it from others in a table.
func short(digest string) string {
	if digest == "" {
		return "none"
	}
	return digest[:min(len(digest), 19)]
}

// due is when something comes, for people.
func due(t time.Time) string {
	if t.IsZero() {
		return "never by itself"
	}
	return t.Local().Format("2006-01-02 15:04")
}

// reasonFlag is why an operator decides something.
func reasonFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("reason", "", "why; it is kept, and goes into the log of events")
}

// NewPromote has a tag answer with a digest.
func NewPromote(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "promote REF [DIGEST] --reason TEXT",
		Short: "Let a tag answer with a digest that waits",
		Long: `Has a tag answer with a digest from now on, however young it is and whatever is frozen:
that which the tag points to, or another. It goes on until the tag gets a digest that is
old enough by itself. Lists, signatures and judges are not overruled.

With --withdraw the promotion is taken back.`,
		Example: `  forebay tag promote nginx:1.27 --reason "fixes CVE-2026-1234"
  forebay tag promote nginx:1.27 sha256:… --reason "back to what worked"
  forebay tag promote nginx:1.27 --withdraw`,
		Args: cobra.RangeArgs(1, 2),
	}
	why := reasonFlag(cmd)
	back := cmd.Flags().Bool("withdraw", false, "take the promotion back")
	return adminclient.OnServer(p, cmd, func(ctx context.Context, o *adminclient.Client, args []string) error {
		if *back {
			_, err := o.Ask(ctx, http.MethodDelete, "/promotions", url.Values{"ref": args[:1]}, nil, nil)
			return err
		}
		in := govern.PromotionRequest{Ref: args[0], Reason: *why}
		if len(args) > 1 {
			in.Digest = args[1]
		}
		if strings.TrimSpace(*why) == "" {
			return command.Usage(errors.New("say why, with --reason: it is kept, and goes into the log"))
		}
		var out govern.Promotion
		if told, err := o.Tell(ctx, http.MethodPost, "/promotions", nil, in, &out); told || err != nil {
			return err
		}
		_, err := fmt.Fprintf(o.Stdout, "%s answers with %s now; before: %s\n", terminal.Printable(out.Ref), out.Digest, short(out.Was))
		return err
	})
}

// NewWaiting lists what waits.
func NewWaiting(p adminclient.Program) *cobra.Command {
	return adminclient.OnServer(p, &cobra.Command{
		Use:   "waiting",
		Short: "List tags that do not answer with what they point to",
		Long: `Lists tags that a rule keeps from answering with the digest that they point to, since when
they point to it, what answers meanwhile, and when that changes by itself.`,
		Example: `  forebay tag waiting`,
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, o *adminclient.Client, _ []string) error {
		return showReport(ctx, o, false)
	})
}

// showReport lists what the policy changes; with would, what it would if all rules were enforced.
func showReport(ctx context.Context, o *adminclient.Client, would bool) error {
	var r govern.Report
	if told, err := o.Tell(ctx, http.MethodGet, "/policy/report", nil, nil, &r); told || err != nil {
		return err
	}
	t := o.Table("TAG", "POINTS TO", "SINCE", "ANSWERS", "RULE", "DUE", "WHY")
	n := 0
	for _, s := range r.Tags {
		answers, passed := s.Answers, s.Passed
		if would && s.Would != "" {
			answers, passed = s.Would, s.WouldPassed
		}
		if len(passed) == 0 || answers == s.PointsTo {
			continue
		}
		rule := passed[0].Rule
		if would && s.Would != "" {
			rule += " (observed)"
		}
		n++
		why := passed[0].Why
		if s.Decided != nil {
			why += "; " + s.Decided.String()
		}
		t.Row(s.Ref, short(s.PointsTo), terminal.Ago(s.Since), short(answers), rule, due(passed[0].Due), why)
	}
	if n == 0 {
		_, err := fmt.Fprintln(o.Stderr, "Every tag answers with what it points to.")
		return err
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.More {
		_, err := fmt.Fprintln(o.Stderr, "There are more.")
		return err
	}
	return nil
}

// NewPolicy tells what the policy says.
func NewPolicy(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Tell what the rules say of tags",
		Long: `Tells which digest of a tag answers, by which rule and why, and what would be another if
rules that only observe were enforced. Rules are policies of the configuration.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(adminclient.OnServer(p, &cobra.Command{
		Use:   "test REF…",
		Short: "Say which digest of a tag answers, and why",
		Long: `Says of each tag which digest answers, which do not, by which rule and why. What is needed
to tell is asked of the registry: a HEAD for a tag that is not known, and manifests where
a rule goes by what is in them.`,
		Example: `  forebay policy test nginx:1.27 ghcr.io/owner/app:v2`,
		Args:    cobra.MinimumNArgs(1),
	}, func(ctx context.Context, o *adminclient.Client, args []string) error {
		for _, ref := range args {
			var s govern.Standing
			answer, err := o.Ask(ctx, http.MethodPost, "/policy/test", nil, govern.TestRequest{Ref: ref}, &s)
			if err == nil && o.AsJSON {
				err = o.WriteAnswer(answer)
			} else if err == nil {
				err = tellStanding(o, s)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}))
	cmd.AddCommand(adminclient.OnServer(p, &cobra.Command{
		Use:   "report",
		Short: "List what the rules change, or would",
		Long: `Lists the tags that answer with something else than they point to, and those that would
if rules that only observe were enforced.`,
		Example: `  forebay policy report`,
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, o *adminclient.Client, _ []string) error { return showReport(ctx, o, true) }))
	return cmd
}

func tellStanding(o *adminclient.Client, s govern.Standing) error {
	lines := []string{
		terminal.Printable(s.Ref),
		"  points to  " + s.PointsTo + "  (first seen " + terminal.Ago(s.Since) + ")",
	}
	if s.Decided != nil {
		lines = append(lines, "  which was  "+terminal.Printable(s.Decided.String()))
	}
	lines = append(lines, "  answers    "+orNone(s.Answers))
	tell := func(passed []govern.Passed, prefix string) {
		for _, one := range passed {
			lines = append(lines, fmt.Sprintf("  %s%s  policy %s: %s; answers: %s", prefix, short(one.Digest), terminal.Printable(one.Rule), terminal.Printable(one.Why), due(one.Due)))
		}
	}
	tell(s.Passed, "not ")
	if s.Would != "" {
		lines = append(lines, "  would be   "+orNone(strings.TrimPrefix(s.Would, "none"))+"  if all rules were enforced")
		tell(s.WouldPassed, "would not ")
	}
	_, err := fmt.Fprintln(o.Stdout, strings.Join(lines, "\n"))
	return err
}

func orNone(digest string) string {
	if digest == "" {
		return "none"
	}
	return digest
}

// instantFlag reads a time from a flag; empty is none.
func instantFlag(name, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, ok := wire.Instant(text); ok {
		return t, nil
	}
	return time.Time{}, command.Usage(fmt.Errorf("--%s: %q is no time: use one such as 2026-11-01 or 2026-11-01T12:00Z", name, text))
}

// NewFreeze has tags stay as they are.
func NewFreeze(p adminclient.Program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "freeze [REF|PATTERN]",
		Short: "Have tags stay as they are, or list which do",
		Long: `Has tags that match a pattern answer with what they point to now, or with what they
pointed to at a time, whatever their registry says, until a time or until the freeze is
lifted (forebay thaw). A tag that is seen for the first time later stays at what it has then.
Without a pattern the freezes are listed.`,
		Example: `  forebay freeze 'docker.io/library/*' --until 2026-12-24 --reason "release 7"
  forebay freeze nginx:1.27 --at 2026-11-01T12:00Z
  forebay freeze`,
		Args: cobra.MaximumNArgs(1),
	}
	why := reasonFlag(cmd)
	at := cmd.Flags().String("at", "", "as they were at that time; default: now")
	until := cmd.Flags().String("until", "", "until that time; default: until the freeze is lifted")
	return adminclient.OnServer(p, cmd, func(ctx context.Context, o *adminclient.Client, args []string) error {
		if len(args) == 0 {
			return listFreezes(ctx, o)
		}
		in := govern.Freeze{Pattern: args[0], Reason: *why}
		var err error
		if in.At, err = instantFlag("at", *at); err != nil {
			return err
		}
		if in.Until, err = instantFlag("until", *until); err != nil {
			return err
		}
		var out govern.Freeze
		if told, err := o.Tell(ctx, http.MethodPost, "/freezes", nil, in, &out); told || err != nil {
			return err
		}
		_, err = fmt.Fprintf(o.Stdout, "%s stays as of %s, %s\n", terminal.Printable(out.Pattern), due(out.At), untilText(out.Until))
		return err
	})
}

func untilText(t time.Time) string {
	if t.IsZero() {
		return "until it is lifted"
	}
	return "until " + due(t)
}

func listFreezes(ctx context.Context, o *adminclient.Client) error {
	var d govern.Decisions
	if told, err := o.Tell(ctx, http.MethodGet, "/policy", nil, nil, &d); told || err != nil {
		return err
	}
	if len(d.Freezes) == 0 {
		_, err := fmt.Fprintln(o.Stderr, "Nothing is frozen.")
		return err
	}
	t := o.Table("PATTERN", "AS OF", "UNTIL", "BY", "REASON")
	for _, f := range d.Freezes {
		t.Row(f.Pattern, due(f.At), untilText(f.Until), f.By, f.Reason)
	}
	return t.Flush()
}

// NewThaw lifts a freeze.
func NewThaw(p adminclient.Program) *cobra.Command {
	return adminclient.OnServer(p, &cobra.Command{
		Use:     "thaw PATTERN",
		Short:   "Lift a freeze",
		Long:    `Lifts a freeze. PATTERN is as "forebay freeze" shows it.`,
		Example: `  forebay thaw 'docker.io/library/*'`,
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, o *adminclient.Client, args []string) error {
		_, err := o.Ask(ctx, http.MethodDelete, "/freezes", url.Values{"pattern": args}, nil, nil)
		return err
	})
}
