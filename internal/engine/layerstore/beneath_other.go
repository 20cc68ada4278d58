//go:build !linux

package layerstore

import (
	"errors"
	"os"
)

const canOpenBeneath = false

func openBeneath(*os.File, string) (*os.File, error) { return nil, errors.ErrUnsupported }
