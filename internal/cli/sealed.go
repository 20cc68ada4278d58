package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/config"
	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
)

// sealedFlag is the name of the flag that all commands have.
const sealedFlag = "sealed"

// prepare reads the configuration for a command, and does what is to be done before
// any of them. It runs before each but those that contact nothing whatever happens.
func (a *app) prepare(c *cobra.Command, args []string) error {
	if contactsNothing(c) {
		return nil
	}
	if c.Flags().Changed("config-file") && a.configFile == "" {
		return fault.New(fault.Usage, "--config-file is empty").Advise("Name the file, or leave it out.")
	}
	set, err := a.configuration()
	if err != nil {
		return err
	}
	if set, err = a.resolveRemotes(c, args, set); err != nil {
		return err
	}
	a.set = set
	if err := a.setFlags(c, args, set); err != nil {
		return err
	}
	if err := a.setSeal(c, set); err != nil {
		return err
	}
	return a.takeLock(c, set)
}

// setSeal finds out whether dogestry is sealed, and with what is allowed.
func (a *app) setSeal(c *cobra.Command, conf *config.Config) (err error) {
	on, from := conf.Sealed.Value, conf.Sealed.From
	if c.Flags().Changed(sealedFlag) {
		if !a.sealed && conf.SealedStays {
			return fault.New(fault.Refused, "%s seals dogestry, and --sealed=false does not take that back", from).
				Advise("Name there what else may be contacted: sealed-allow. See docs/sealed.md.")
		}
		if on = a.sealed; from == "" || !conf.Sealed.Value {
			from = "--" + sealedFlag
		}
	}
	if a.sealed = on; !on {
		return nil
	}
	a.seal, err = sealed.New(sealed.Options{From: from, Allow: conf.SealedAllow.Value, Programs: conf.SealedPrograms.Value})
	if err != nil {
		return fault.Wrap(fault.Usage, err, "%s", conf.SealedAllow.From)
	}
	return nil
}

// contactsNothing reports whether a command needs no configuration: it prints what
// the program knows by itself.
func contactsNothing(c *cobra.Command) bool {
	if !c.HasParent() {
		return true // help, or the version
	}
	for ; c.HasParent(); c = c.Parent() {
		switch name := c.Name(); {
		case name == "help", name == "completion", name == "version", strings.HasPrefix(name, "__"):
			return true
		}
	}
	return false
}
