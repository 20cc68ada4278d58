package config

import (
	"slices"

	"github.com/dogestry/dogestry/internal/fault"
)

// Near returns those of names that a typing error may have made said of, sorted.
func Near(said string, names []string) []string {
	var near []string
	for _, name := range names {
		most := max(1, len(name)/4)
		if len(said) <= len(name)+most && fault.Distance(said, name) <= most {
			near = append(near, name)
		}
	}
	slices.Sort(near)
	return near
}
