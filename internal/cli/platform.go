package cli

import (
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/transfer"
)

// deltaUsage is how --delta is described.
const deltaUsage = "`WHEN` layers are put together out of layers that the engine has and parts of the stored ones: auto (where that is quicker), always, never"

// deltaValue is the value of --delta.
type deltaValue transfer.Delta

func (v *deltaValue) String() string { return string(*v) }

func (v *deltaValue) Set(s string) error {
	d, err := transfer.ParseDelta(s)
	*v = deltaValue(d)
	return err
}

// Type is what usage calls it where the flag's text does not.
func (v *deltaValue) Type() string { return "when" }

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
