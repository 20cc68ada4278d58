package remote

import (
	"errors"
	"iter"
	"slices"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// NoSuchTag is the fault of a tag that a remote, which the user calls name, does
// not have. It tells which of those there are may be meant.
func NoSuchTag(name string, ref image.Reference, there iter.Seq2[Tag, error]) error {
	f := fault.New(fault.NotFound, "no image %s in %s", ref, name)
	var tags, repositories []string
	for tag, err := range there {
		if errors.Is(err, errors.ErrUnsupported) {
			return f.Advise("Check the name: nothing there lists what there is.")
		}
		if err != nil {
			break // there is an error to tell already
		}
		found := tag.Reference
		if found.Repository == ref.Repository {
			tags = append(tags, found.Tag)
		} else if n := len(repositories); n == 0 || repositories[n-1] != found.Repository {
			repositories = append(repositories, found.Repository)
		}
	}
	switch {
	case len(tags) > 0:
		return f.Advise("%s has the tags %s.", ref.Repository, some(tags))
	case len(repositories) > 0:
		return f.Advise("It has the repositories %s.", some(repositories))
	default:
		return f.Advise("There are no images in it.")
	}
}

// NoSuchRepository is the fault of a repository of which a remote has no tag.
func NoSuchRepository(name, repository string, there iter.Seq2[Tag, error]) error {
	f := fault.New(fault.NotFound, "no repository %s in %s", repository, name)
	var repositories []string
	for tag, err := range there {
		if err != nil {
			break
		}
		if n := len(repositories); n == 0 || repositories[n-1] != tag.Reference.Repository {
			repositories = append(repositories, tag.Reference.Repository)
		}
	}
	if len(repositories) == 0 {
		return f.Advise("There are no images in it.")
	}
	return f.Advise("It has the repositories %s.", some(repositories))
}

// some returns the first names in alphabetical order, each once.
func some(names []string) string {
	const most = 10
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > most {
		names = append(names[:most:most], "…")
	}
	return strings.Join(names, ", ")
}
