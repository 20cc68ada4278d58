package cli

import (
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/transfer"
)

// platformValue is the value of --platform.
type platformValue image.Platform

func (v *platformValue) String() string {
	if *v == (platformValue{}) {
		return ""
	}
	return image.Platform(*v).String()
}

func (v *platformValue) Set(s string) error {
	p, err := transfer.ParsePlatform(s)
	*v = platformValue(p)
	return err
}

// Type is what usage calls it where the flag's text does not.
func (v *platformValue) Type() string { return "platform" }
