//go:build !windows

package engine

import (
	"context"
	"errors"
	"net"
)

// dialPipe: there are none here.
func dialPipe(context.Context, string) (net.Conn, error) { return nil, errors.ErrUnsupported }
