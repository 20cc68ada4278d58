package layout

import (
	"fmt"
	"iter"
	"regexp"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Item is an image that an index names.
type Item struct {
	Root image.Descriptor // of the manifest or index; in a docker archive also of a config

	// Config is what the index says that the image was known by where it came from;
	// zero where it says nothing. It counts only if Root follows from it.
	Config image.Digest

	// Name may lack the repository, where only a tag is said, and is zero where
	// nothing is.
	Name image.Reference
}

func (i Item) unnamed() bool { return i.Name == image.Reference{} }

// bareTag is a name that says a tag and no repository, as skopeo and others write it.
var bareTag = regexp.MustCompile(`^[\w][\w.-]{0,127}$`)

// ParseName reads the name of an image in an index: a reference, or a tag alone.
// What is neither is no name, and zero.
func ParseName(s string) image.Reference {
	if bareTag.MatchString(s) {
		return image.Reference{Tag: s}
	}
	ref, err := image.ParseReference(s)
	if err != nil || !ref.Digest.IsZero() {
		return image.Reference{}
	}
	return ref
}

// find returns the item that a reference with a tag names: one of this very name;
// else one of which only the tag is said; else, where there is one image in all and
// it has no name, that one.
func find(name string, items []Item, ref image.Reference) (Item, error) {
	for _, want := range []image.Reference{ref, {Tag: ref.Tag}} {
		found := distinct(items, want)
		switch len(found) {
		case 0:
			continue
		case 1:
			return found[0], nil
		}
		return Item{}, fault.New(fault.Refused, "%s names %d images %s: %s, %s", name, len(found), want.String(), found[0].Root.Digest.Short(), found[1].Root.Digest.Short()).
			Advise("Say which: %s@%s, and with --as how to call it.", ref.Repository, found[0].Root.Digest)
	}
	if nameless := distinct(items, image.Reference{}); len(nameless) == 1 && len(items) == 1 {
		return nameless[0], nil
	} else if len(nameless) > 0 && len(nameless) == len(items) {
		return Item{}, fault.New(fault.NotFound, "no image %s in %s: its %d images have no names", ref, name, len(nameless)).
			Advise("Say which: %s@%s, and with --as how to call it.", ref.Repository, nameless[0].Root.Digest)
	}
	return Item{}, remote.NoSuchTag(name, ref, func(yield func(remote.Tag, error) bool) {
		for _, i := range items {
			if i.Name.Repository == "" { // any will do
				i.Name.Repository = ref.Repository
			}
			if i.Name.Tag != "" && !yield(remote.Tag{Reference: i.Name}, nil) {
				return
			}
		}
	})
}

// distinct returns the images of this name, each once.
func distinct(items []Item, name image.Reference) []Item {
	var found []Item
	seen := map[[2]image.Digest]bool{}
	for _, i := range items {
		key := [2]image.Digest{i.Root.Digest, i.Config}
		if i.Name == name && !seen[key] {
			seen[key] = true
			found = append(found, i)
		}
	}
	return found
}

// references yields the names in a repository, to which those count that say only
// a tag; of all, where it is empty. Then names without a repository are an error.
func references(name string, items []Item, repository string) iter.Seq2[remote.Tag, error] {
	return func(yield func(remote.Tag, error) bool) {
		seen := map[image.Reference]bool{}
		var bare, nameless []string
		for _, i := range items {
			ref := i.Name
			switch {
			case i.unnamed():
				nameless = append(nameless, i.Root.Digest.Short())
				continue
			case ref.Repository == "" && repository == "":
				bare = append(bare, ref.Tag)
				continue
			case ref.Repository == "":
				ref.Repository = repository
			}
			if repository != "" && ref.Repository != repository || seen[ref] {
				continue
			}
			seen[ref] = true
			if !yield(remote.Tag{Reference: ref}, nil) {
				return
			}
		}
		switch {
		case len(bare) > 0:
			yield(remote.Tag{}, fault.New(fault.Refused, "%s does not say of which repository %s is", name, some(bare)).
				Advise("Say it: --all REPOSITORY, or REPOSITORY:%s for one image.", bare[0]))
		case len(nameless) > 0 && len(nameless) == len(items) && repository == "":
			yield(remote.Tag{}, fault.New(fault.Refused, "%s does not say what its images are called: %s", name, some(nameless)).
				Advise("Copy them one by one: NAME:TAG where there is one image, else NAME@sha256:… and --as NAME:TAG."))
		}
	}
}

// some is a list for people, of a few.
func some(names []string) string {
	const most = 5
	text := names[0]
	for i, n := range names[1:] {
		if i+1 == most {
			return text + fmt.Sprintf(" and %d more", len(names)-most)
		}
		text += ", " + n
	}
	return text
}
