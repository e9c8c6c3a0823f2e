// Package durable makes the changes of the index to the disk, each as a step that a test can
// cut or fail.
//
// It promises that no step is done of which a [Fault] says no. What is done survives a loss
// of power only after the Sync of a file and the SyncFolder of its folder.
package durable

import (
	"errors"
	"io/fs"
	"os"
)

// Step is one change that the index makes to the disk. What the database does on its own
// in the background is not among them.
type Step string

// The steps.
const (
	StepAppend Step = "append" // to the journal
	StepCommit Step = "commit" // of a transaction of the database
	StepSync   Step = "sync"
	StepCreate Step = "create"
	StepRename Step = "rename"
	StepRemove Step = "remove"
)

// Fault is asked before each step; its error is returned in place of doing the step. It
// may also end the process. It must not call the index.
type Fault func(step Step, name string) error

// Before asks whether a step is to be done, and returns the error that is to be returned in its place.
func (f Fault) Before(step Step, name string) error {
	if f == nil {
		return nil
	}
	if err := f(step, name); err != nil {
		return &fs.PathError{Op: string(step), Path: name, Err: err}
	}
	return nil
}

// Create opens a file for its owner alone, with flags beside os.O_CREATE.
func (f Fault) Create(name string, flag int) (*os.File, error) {
	if err := f.Before(StepCreate, name); err != nil {
		return nil, err
	}
	return os.OpenFile(name, flag|os.O_CREATE, 0o600)
}

// Rename is os.Rename.
func (f Fault) Rename(from, to string) error {
	if err := f.Before(StepRename, to); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// RemoveIfThere removes a file. One that is not there is no error.
func (f Fault) RemoveIfThere(name string) error {
	if err := f.Before(StepRemove, name); err != nil {
		return err
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// RemoveAll is os.RemoveAll.
func (f Fault) RemoveAll(name string) error {
	if err := f.Before(StepRemove, name); err != nil {
		return err
	}
	return os.RemoveAll(name)
}

// Sync makes what a file holds survive a loss of power.
func (f Fault) Sync(file *os.File) error {
	if err := f.Before(StepSync, file.Name()); err != nil {
		return err
	}
	return file.Sync()
}

// SyncFolder makes the names in a folder survive a loss of power.
func (f Fault) SyncFolder(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	return f.Sync(file)
}

// RemoveIfThere is that of a fault that is never asked.
func RemoveIfThere(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
