//go:build !linux

package enginetest

import (
	"context"
	"errors"
	"net"
	"testing"
)

// NamespacesVariable is of Linux.
const NamespacesVariable = "DOGESTRY_TEST_NAMESPACES"

// Namespace is of Linux.
type Namespace struct{}

// NewNamespace fails the test.
func NewNamespace(tb testing.TB) *Namespace {
	tb.Helper()
	tb.Fatal("network namespaces are of Linux")
	return nil
}

// Left fails.
func (*Namespace) Left(context.Context) ([]string, error) { return nil, errors.ErrUnsupported }

// Await fails.
func (*Namespace) Await(context.Context, string) error { return errors.ErrUnsupported }

// Command returns args.
func (*Namespace) Command(args ...string) []string { return args }

// Listen fails.
func (*Namespace) Listen(string) (net.Listener, error) { return nil, errors.ErrUnsupported }
