package transfer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// choice says which of an image's platforms are meant.
type choice struct {
	name     string // of the image, for messages
	platform image.Platform
	all      bool
	attested bool // and what attests them
}

// chosen is what a push was asked for: without a platform all.
func chosen(name string, o Options) choice {
	return choice{name: name, platform: o.Platform, all: o.Platform == image.Platform{}}
}

// pick returns the manifests of an index that are meant: of the platforms that
// would run, the one that suits best.
func (c choice) pick(children []image.Child) ([]image.Digest, error) {
	if c.all {
		var ids []image.Digest
		for _, child := range children {
			ids = append(ids, child.Digest)
		}
		return ids, nil
	}
	var images []image.Child
	for _, child := range children {
		if child.Attests.IsZero() {
			images = append(images, child)
		}
	}
	if len(images) == 1 && images[0].Platform == (image.Platform{}) {
		return c.attesting(children, images[0].Digest), nil // an index need not say
	}
	runs := platforms.Only(oci(c.platform))
	slices.SortStableFunc(images, func(a, b image.Child) int {
		switch {
		case runs.Less(oci(a.Platform), oci(b.Platform)):
			return -1
		case runs.Less(oci(b.Platform), oci(a.Platform)):
			return 1
		}
		return 0
	})
	if len(images) == 0 || !runs.Match(oci(images[0].Platform)) {
		return nil, c.none(images)
	}
	return c.attesting(children, images[0].Digest), nil
}

// attesting returns a manifest, and what attests it where that is meant too.
func (c choice) attesting(children []image.Child, id image.Digest) []image.Digest {
	ids := []image.Digest{id}
	for _, child := range children {
		if c.attested && child.Attests == id {
			ids = append(ids, child.Digest)
		}
	}
	return ids
}

// check refuses an image of one platform alone that is another than was asked for.
func (c choice) check(platform image.Platform) error {
	if c.all || platforms.Only(oci(c.platform)).Match(oci(platform)) {
		return nil
	}
	return c.none([]image.Child{{Platform: platform}})
}

func (c choice) none(images []image.Child) error {
	f := fault.New(fault.NotFound, "%s is not there for %s", c.name, c.platform)
	var names []string
	for _, i := range images {
		names = append(names, i.Platform.String())
	}
	if len(names) == 0 {
		return f
	}
	return f.Advise("It is there for %s: see --platform.", strings.Join(names, ", "))
}

func oci(p image.Platform) ocispec.Platform {
	return platforms.Normalize(ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion})
}

// ParsePlatform reads "linux/arm64", "linux/arm/v7" or "arm64", as docker does.
func ParsePlatform(s string) (image.Platform, error) {
	p, err := platforms.Parse(s)
	if err != nil {
		return image.Platform{}, fmt.Errorf("%.100q is not a platform: %w", s, err)
	}
	return image.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion}, nil
}
