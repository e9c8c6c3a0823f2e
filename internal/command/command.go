// Package command is what all commands of the program share: what they see of their
// process, how settings reach them, and how they end.
//
// It promises that a command ends with one of the exit codes below and with one text on
// standard error. It decides nothing that a command is about.
package command

import "io"

// Process is what a command sees of the process that it runs in.
type Process struct {
	Env            []string
	Stdin          io.Reader // nil is empty
	Stdout, Stderr io.Writer
	Root           bool // may write to system folders
}
