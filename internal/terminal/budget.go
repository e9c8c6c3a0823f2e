package terminal

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"forebay/config/unit"
	"forebay/internal/admin"
)

// spentShown is how many of those who spent a budget are shown; --json has more.
const spentShown = 5

// Budgets says what the registries will still give, what will come of it, and who spent it. table makes
// the tables, which belong to the same output.
func Budgets(to io.Writer, table func(head ...string) *Table, all []admin.Upstream) error {
	for _, u := range all {
		for _, b := range u.Budgets {
			if err := budget(to, table, u.Name, b); err != nil {
				return err
			}
		}
	}
	return nil
}

func budget(to io.Writer, table func(head ...string) *Table, name string, b admin.Budget) error {
	if _, err := fmt.Fprintf(to, "\nBudget of %s (%s at %s):\n  %s\n",
		Printable(name), Printable(b.Credential), Printable(b.Host), Printable(budgetText(b))); err != nil {
		return err
	}
	if b.SpentHere == 0 && b.Elsewhere == 0 {
		return nil
	}
	t := table("  SPENT BY", "PULLS", "  SPENT FOR", "PULLS")
	clients, repositories := spentRows(b.SpentByClient, b.SpentHere), spentRows(b.SpentByRepository, b.SpentHere)
	if b.Elsewhere > 0 {
		clients = append(clients, [2]string{"not through this mirror", humanize.Comma(b.Elsewhere)})
	}
	for i := range max(len(clients), len(repositories)) {
		var row [4]string
		if i < len(clients) {
			row[0], row[1] = "  "+clients[i][0], clients[i][1]
		}
		if i < len(repositories) {
			row[2], row[3] = "  "+repositories[i][0], repositories[i][1]
		}
		t.Row(row[:]...)
	}
	return t.Flush()
}

// spentRows are those who spent most, and the others together, which add up to all.
func spentRows(most []admin.Spent, all int64) (rows [][2]string) {
	for i, s := range most {
		if i == spentShown {
			break
		}
		rows = append(rows, [2]string{cmp.Or(s.Name, "this mirror, ahead of time"), humanize.Comma(s.Pulls)})
		all -= s.Pulls
	}
	if all > 0 {
		rows = append(rows, [2]string{"all others", humanize.Comma(all)})
	}
	return rows
}

// budgetText says what a registry will still give to one credential.
func budgetText(b admin.Budget) string {
	var texts, coming []string
	if b.Limit >= 0 && b.Remaining >= 0 {
		text := fmt.Sprintf("%d of %d pulls left", b.Remaining, b.Limit)
		if b.WindowSeconds > 0 {
			text += " per " + unit.FormatDuration(time.Duration(b.WindowSeconds)*time.Second)
		}
		texts = append(texts, text)
	}
	if b.Low {
		texts = append(texts, "below the reserve")
	}
	if b.PerHour > 0 {
		coming = append(coming, humanize.FtoaWithDigits(b.PerHour, 1)+" an hour at the last hour's rate")
	}
	if !b.PausedUntil.IsZero() {
		coming = append(coming, "no pulls until "+b.PausedUntil.Local().Format(time.TimeOnly)+": "+b.Why)
	} else if !b.RunsOut.IsZero() {
		coming = append(coming, "runs out "+Moment(b.RunsOut))
	}
	if !b.Returns.IsZero() && b.PausedUntil.IsZero() {
		coming = append(coming, "more from "+Moment(b.Returns))
	}
	if len(coming) > 0 {
		texts = append(texts, "\n  "+strings.Join(coming, "\n  "))
	}
	return strings.ReplaceAll(OrDash(strings.Join(texts, ", ")), ", \n", "\n")
}
