package operate

import (
	"fmt"
	"strings"

	"forebay/internal/admin"
	"forebay/internal/adminclient"
	"forebay/internal/terminal"
	"forebay/internal/trouble"
)

// showTroubles says what is wrong, as the page does, the most urgent first.
func showTroubles(o *adminclient.Client, all []admin.Trouble) error {
	var b strings.Builder
	wrong := 0
	colours := map[trouble.Severity]string{trouble.Critical: terminal.Red, trouble.Warning: terminal.Yellow}
	for _, t := range all {
		if t.Severity == trouble.Notice {
			continue
		}
		wrong++
		fmt.Fprintf(&b, "%s  %s\n", terminal.Coloured(o.Stdout, colours[t.Severity], strings.ToUpper(string(t.Severity))), terminal.Printable(t.What))
		for _, line := range [][2]string{
			{"Since", terminal.Moment(t.Since)}, {untilName(t), terminal.Moment(t.Until)}, {"Cause", t.Cause}, {"Served", t.Served}, {"Do", t.Do}, {"Said", t.Detail}, {"More", t.Command},
		} {
			if line[1] != "" && !(line[0] == "Said" && strings.Contains(t.Cause, line[1])) && line[1] != "forebay status" {
				fmt.Fprintf(&b, "  %-7s %s\n", line[0]+":", terminal.Printable(line[1]))
			}
		}
		b.WriteString("\n")
	}
	if wrong == 0 {
		b.WriteString(terminal.Coloured(o.Stdout, terminal.Green, "All is well.") + "\n\n")
	}
	for _, t := range all {
		if t.Severity == trouble.Notice {
			fmt.Fprintf(&b, "Note: %s: %s\n\n", terminal.Printable(t.What), terminal.Printable(t.Cause))
		}
	}
	_, err := fmt.Fprint(o.Stdout, b.String())
	return err
}

// untilName says what the end of a trouble is: that of a budget is no relief.
func untilName(t admin.Trouble) string {
	switch t.Kind {
	case trouble.Budget:
		return "Spent"
	case trouble.Limit:
		return "Returns"
	}
	return "Until"
}
