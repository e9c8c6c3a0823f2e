package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"syscall"

	"forebay/cache/disk"
	"forebay/config"
	"forebay/internal/command"
)

// openError adds to an error of the storage folder what to change.
func openError(c *config.Config, err error) error {
	change := fmt.Sprintf("choose another folder with %s", whereSet(c, "storage.dir", "--storage-dir"))
	switch {
	case errors.Is(err, disk.ErrLocked):
		if c.Storage.IndexDir != "" {
			change += ", and with storage.index_dir"
		}
		return command.Hint(err, "Another forebay uses the folder. Stop it, or "+change+".")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return command.Hint(err, fmt.Sprintf("Let %s write to %q and all in it, or %s.", whoami(), c.Storage.Dir, change))
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return command.Hint(err, "The disk is full. Make room, or "+change+".")
	case mustExist(c.Storage.Dir) == nil: // it is of something in the folder
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		return command.Hint(err, fmt.Sprintf("%q is not a folder. Remove it, or %s.", c.Storage.Dir, change))
	case errors.Is(err, fs.ErrNotExist):
		return command.Hint(err, "No folder can be made there: "+change+".")
	}
	return err
}

// listenError adds to an error of opening a listener what to change. key is "listen" or
// "admin_listen".
func listenError(c *config.Config, key, flag string, err error) error {
	if key != "listen" || flag == "" {
		err = fmt.Errorf("%s: %w", key, err)
	}
	change := fmt.Sprintf("choose another address with %s", whereSet(c, key, flag))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return command.Hint(err, "Another program, perhaps another forebay, has this port. Stop it, or "+change+".")
	case errors.Is(err, fs.ErrPermission):
		return command.Hint(err, fmt.Sprintf("Ports below 1024 are not for everybody. Run as root, give the program CAP_NET_BIND_SERVICE, or %s.", change))
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return command.Hint(err, fmt.Sprintf("This machine does not have that address. %s.", "C"+change[1:]))
	}
	return err
}

// whereSet says where a setting is to be changed: where it is set now, else by flag.
func whereSet(c *config.Config, key, flag string) string {
	switch origin := c.Origin(key); {
	case origin.Line > 0:
		return fmt.Sprintf("%s at %s", key, origin)
	case origin.Name != "":
		return origin.Name
	case flag == "":
		return key
	default:
		return fmt.Sprintf("%s or %s", flag, config.Variable(key))
	}
}

func whoami() string {
	u, err := user.Current()
	if err != nil {
		return "the user that forebay runs as"
	}
	return fmt.Sprintf("user %s (%s)", u.Username, u.Uid)
}

// warnRoot tells root of a storage folder whose server may not read what root makes in it.
func warnRoot(p command.Process, dir string) {
	uid, err := disk.Owner(dir)
	if err != nil || uid == 0 || !p.Root {
		return // a folder that is not there yet will be root's
	}
	name := fmt.Sprint(uid)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	fmt.Fprintf(p.Stderr, "Note: %s is %s's, who cannot read what root makes in it. Run this as %s, or chown -R %s it afterwards.\n", dir, name, name, name)
}

// mustExist refuses a storage folder that is not there, where making one is no help.
func mustExist(dir string) error {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return command.Hint(
			fmt.Errorf("storage folder %q is not there", dir),
			"Name the folder that the server uses with --storage-dir or --config.",
		)
	}
	return nil
}
