package cli

import (
	"errors"
	"strings"

	"github.com/docker/go-units"
)

// byteRate is a flag such as 5MB or 500kB/s: bytes a second. Zero is no limit.
type byteRate int64

// Set implements pflag.Value.
func (r *byteRate) Set(s string) error {
	n, err := units.FromHumanSize(strings.TrimSuffix(s, "/s"))
	if err != nil || n <= 0 {
		return errors.New("it is no number of bytes a second such as 5MB")
	}
	*r = byteRate(n)
	return nil
}

// String implements pflag.Value.
func (r *byteRate) String() string {
	if *r == 0 {
		return ""
	}
	return units.HumanSize(float64(*r)) + "/s"
}

// Type implements pflag.Value.
func (r *byteRate) Type() string { return "RATE" }
