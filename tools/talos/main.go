// Command talos does with a patch what "talosctl patch machineconfig" does: puts it into a machine's
// configuration and validates that. It prints where the machine then pulls from, and for which hosts it
// has certificates.
//
//	talos VERSION FILE
package main

import (
	"fmt"
	"log"
	"os"

	"github.com/siderolabs/talos/pkg/machinery/config"
	"github.com/siderolabs/talos/pkg/machinery/config/configpatcher"
	"github.com/siderolabs/talos/pkg/machinery/config/generate"
	"github.com/siderolabs/talos/pkg/machinery/config/machine"
	"github.com/siderolabs/talos/pkg/machinery/config/validation"
	"github.com/siderolabs/talos/pkg/machinery/constants"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("talos VERSION FILE")
	}
	if err := patch(os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func patch(version, file string) error {
	contract, err := config.ParseContractFromVersion(version)
	if err != nil {
		return err
	}
	input, err := generate.NewInput("test", "https://cluster.test:6443", constants.DefaultKubernetesVersion, generate.WithVersionContract(contract), generate.WithInstallDisk("/dev/sda"))
	if err != nil {
		return err
	}
	worker, err := input.Config(machine.TypeWorker)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	p, err := configpatcher.LoadPatch(text)
	if err != nil {
		return err
	}
	out, err := configpatcher.Apply(configpatcher.WithConfig(worker), []configpatcher.Patch{p})
	if err != nil {
		return err
	}
	patched, err := out.Config()
	if err != nil {
		return err
	}
	if warnings, err := patched.Validate(metal{}, validation.WithLocal(), validation.WithStrict()); err != nil || len(warnings) > 0 {
		return fmt.Errorf("%v, and warnings %q", err, warnings)
	}
	for name, mirror := range patched.RegistryMirrorConfigs() {
		for _, e := range mirror.Endpoints() {
			fmt.Println(name, "from", e.Endpoint())
		}
	}
	for host, tls := range patched.RegistryTLSConfigs() {
		if len(tls.CA()) > 0 {
			fmt.Println(host, "has a CA")
		}
	}
	return nil
}

// metal is a machine, as talosctl validates for.
type metal struct{}

func (metal) String() string        { return "metal" }
func (metal) RequiresInstall() bool { return true }
func (metal) InContainer() bool     { return false }
