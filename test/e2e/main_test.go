package e2e

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain runs twice. Outside the sandbox, where there is a network and a
// module cache, it builds the programs and starts itself again inside. There it
// runs the tests.
func TestMain(m *testing.M) {
	if !inSandbox() {
		os.Exit(outside())
	}
	goleak.VerifyTestMain(m)
}

// outside returns the exit status of the tests inside.
func outside() int {
	if err := prepare(); err != nil {
		fmt.Fprintf(os.Stderr, "end-to-end tests: %v\n", err)
		return 1
	}
	status, err := enterSandbox()
	if err != nil {
		fmt.Fprintf(os.Stderr, "end-to-end tests: %v\n", err)
		return 1
	}
	return status
}

func prepare() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("they start container daemons and need root: run \"sudo make test\", or leave them out with \"go test $(go list ./... | grep -v test/e2e)\"")
	}
	if err := checkPrograms(); err != nil {
		return err
	}
	if err := buildPrograms(); err != nil {
		return err
	}
	return neverCache()
}
