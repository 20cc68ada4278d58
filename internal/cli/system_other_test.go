//go:build !linux

package cli

import "errors"

func becomeNobody() error { return errors.ErrUnsupported }

func mountReadOnly(string) (undo func(), err error) { return nil, errors.ErrUnsupported }
