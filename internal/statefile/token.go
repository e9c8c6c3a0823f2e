package statefile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"forebay/internal/secret"
)

// tokenMost bounds the length of a token.
const tokenMost = 4096

// ReadToken reads the token in a file. A line break at its end is dropped.
func ReadToken(name string) (string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	token := secret.Line(text)
	if token == "" || len(token) > tokenMost || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("%q holds no token", name)
	}
	return token, nil
}

// MakeToken returns the token in a file. If the file is not there, holds none, or was open to others,
// it gets a new one and only its owner may read it. One process at a time may call it. With an error it returns a token
// that is nowhere but here.
func MakeToken(name string) (string, error) {
	token, err := ReadToken(name)
	var failed *fs.PathError
	switch {
	case err == nil && private(name):
		return token, nil
	case errors.As(err, &failed) && !errors.Is(err, fs.ErrNotExist):
		return rand.Text(), err
	}
	token = rand.Text() // 130 bits
	return token, Replace(name, []byte(token+"\n"))
}

// private reports whether only the owner of a file may read and write it.
func private(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().Perm()&0o077 == 0
}
