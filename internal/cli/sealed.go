package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/sealed"
)

// sealedFlag is the name of the flag that all commands have.
const sealedFlag = "sealed"

// setSeal finds out whether dogestry is sealed, and with what is allowed. It runs
// before each command but those that contact nothing whatever happens.
func (a *app) setSeal(c *cobra.Command, _ []string) error {
	if contactsNothing(c) {
		return nil
	}
	conf, err := a.configuration()
	if err != nil {
		return err
	}
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
