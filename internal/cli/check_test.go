package cli

import (
	"errors"
	"fmt"
	"testing"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/storage"
	"github.com/dogestry/dogestry/internal/storage/probe"
)

// What only some commands need does not make a remote unfit.
func TestVerdict(t *testing.T) {
	denied := fmt.Errorf("x: %w", storage.ErrPermission)
	read := probe.Result{Name: "read", Status: probe.OK, Required: true}
	for name, test := range map[string]struct {
		result probe.Result
		kind   fault.Kind // 0: none
		text   string
	}{
		"fine":                 {probe.Result{Name: "write", Status: probe.OK, Required: true}, 0, ""},
		"warning":              {probe.Result{Name: "clock", Status: probe.Warning, Required: true}, 0, ""},
		"optional unsupported": {probe.Result{Name: "compare and swap", Status: probe.Unsupported}, 0, ""},
		"optional broken":      {probe.Result{Name: "create if absent", Status: probe.Failed, Err: errors.New("two winners")}, 0, ""},
		"required unsupported": {probe.Result{Name: "ranges", Status: probe.Unsupported, Required: true, Detail: "none"}, fault.Other, "R is not fit for push and pull: ranges: none"},
		"required broken":      {probe.Result{Name: "list", Status: probe.Failed, Required: true, Detail: "order", Err: errors.New("order")}, fault.Other, "R is not fit for push and pull: list: order"},
		"read-only":            {probe.Result{Name: "write", Status: probe.Failed, Required: true, Detail: "denied", Err: denied}, fault.Refused, "R can be listed and read, and not written: denied"},
	} {
		err := verdict("R", []probe.Result{read, test.result})
		switch {
		case test.kind == 0 && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.kind != 0 && (err == nil || fault.KindOf(err) != test.kind || err.Error() != test.text):
			t.Errorf("%s: %v (%v), want %s", name, err, fault.KindOf(err), test.text)
		}
	}
}
