//go:build !linux

package command

// ForgetStart does nothing here.
func ForgetStart() {}
