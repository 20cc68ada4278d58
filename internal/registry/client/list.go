package client

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"regexp"
	"strings"

	"oras.land/oras-go/v2/registry"
	orasremote "oras.land/oras-go/v2/registry/remote"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// errStop ends a list of which nobody wants more.
var errStop = errors.New("enough")

// listing returns what lists tags and referrers. It is one for all calls, which take
// turns in changing a list of referrers.
func (p *Repository) listing(ctx context.Context) (*orasremote.Repository, error) {
	base, err := p.registry.url(ctx, "")
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.list != nil {
		return p.list, nil
	}
	p.list = &orasremote.Repository{
		Client:           p.registry.client,
		Reference:        registry.Reference{Registry: p.registry.o.endpoint(), Repository: p.path},
		PlainHTTP:        strings.HasPrefix(base, "http://"),
		MaxMetadataBytes: image.MaxDocument,
		SkipReferrersGC:  true, // the index that is replaced may be deleted by others, who may not be allowed to
	}
	return p.list, nil
}

// referrersTag is what registries without the API for referrers call their lists of
// them (distribution-spec, "Referrers Tag Schema"): no image's name.
var referrersTag = regexp.MustCompile(`^sha256-[0-9a-f]{64}$`)

// References yields the tags of the repository, page by page.
func (p *Repository) References(ctx context.Context, repository string) iter.Seq2[remote.Tag, error] {
	return func(yield func(remote.Tag, error) bool) {
		if repository != "" && repository != p.name {
			return
		}
		err := p.bad
		if err == nil {
			err = p.tags(ctx, func(tag string) bool {
				return yield(remote.Tag{Reference: image.Reference{Repository: p.name, Tag: tag}}, nil)
			})
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(remote.Tag{}, err)
		}
	}
}

// tags calls yield for each tag until it has enough, which is errStop.
func (p *Repository) tags(ctx context.Context, yield func(string) bool) error {
	return p.pages(ctx, 0, yield)
}

// pages is tags of at most so many pages, after which it is errStop as well; 0 is all.
func (p *Repository) pages(ctx context.Context, most int, yield func(string) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	list, err := p.listing(ctx)
	if err == nil {
		err = list.Tags(ctx, "", func(tags []string) error {
			for _, tag := range tags {
				if err := ctx.Err(); err != nil {
					return err
				}
				if !referrersTag.MatchString(tag) && validTag(p.name, tag) && !yield(tag) {
					return errStop
				}
			}
			if most--; most == 0 {
				return errStop
			}
			return nil
		})
	}
	if errors.Is(err, errStop) {
		return err
	}
	if isStatus(err, http.StatusNotFound) {
		return nil // a repository without tags, or none
	}
	return p.failure(ctx, err, "cannot list the tags of %s", p.where())
}

// validTag refuses what a registry should not have, and a terminal should not get.
func validTag(repository, tag string) bool {
	ref, err := image.ParseReference(repository + ":" + tag)
	return err == nil && ref.Tag == tag
}

// Catalog yields the repositories below the prefix, as images are called here.
func (r *Registry) Catalog(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := ctx.Err(); err != nil {
			yield("", err)
			return
		}
		if r.o.Host == hub {
			yield("", r.noCatalog(nil))
			return
		}
		base, err := r.url(ctx, "")
		if err == nil {
			list := &orasremote.Registry{RepositoryOptions: orasremote.RepositoryOptions{
				Client:           r.client,
				Reference:        registry.Reference{Registry: r.o.endpoint()},
				PlainHTTP:        strings.HasPrefix(base, "http://"),
				MaxMetadataBytes: image.MaxDocument,
			}}
			err = list.Repositories(ctx, "", func(paths []string) error {
				for _, path := range paths {
					if name, ok := r.o.repositoryOf(path); ok && !yield(name, nil) {
						return errStop
					}
				}
				return nil
			})
		}
		switch a := answerOf(err); {
		case err == nil, errors.Is(err, errStop):
		case a != nil && (a.status == http.StatusNotFound || a.status == http.StatusUnauthorized || a.status == http.StatusForbidden || a.status == http.StatusMethodNotAllowed):
			yield("", r.noCatalog(err))
		default:
			yield("", r.failure(ctx, err, "cannot list the repositories of %s", r.o.Name))
		}
	}
}

func (r *Registry) noCatalog(err error) error {
	f := fault.New(fault.Refused, "%s does not list its repositories", r.o.Name)
	if err != nil {
		f = fault.Wrap(fault.Refused, cleaned{err}, "%s does not list its repositories", r.o.Name)
	}
	return f.Advise("Name one: dogestry list %s REPOSITORY. Many registries refuse to list all; where yours does not, log in: %s", r.o.Name, r.o.login())
}

// notFound is the fault of a name that the repository does not have. It tells what
// there is instead, as far as the registry does.
func (p *Repository) notFound(ctx context.Context, ref image.Reference) error {
	if p.registry.o.Serving {
		return fault.New(fault.NotFound, "no image %s in %s", ref, p.registry.o.Name)
	}
	told := true
	there := func(yield func(remote.Tag, error) bool) {
		some := 0
		for tag, err := range p.References(ctx, p.name) {
			if some++; err != nil || !yield(tag, nil) {
				return
			}
			if some == mostTold {
				return
			}
		}
		if some > 0 {
			return
		}
		for name, err := range p.registry.Catalog(ctx) {
			if err != nil {
				told = false
				return
			}
			if some++; name != p.name && !yield(remote.Tag{Reference: image.Reference{Repository: name}}, nil) || some == mostTold {
				return
			}
		}
	}
	err := remote.NoSuchTag(p.registry.o.Name, ref, there)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !told {
		return fault.New(fault.NotFound, "no image %s in %s", ref, p.registry.o.Name).Advise("Check the name, and whether you have to log in: %s", p.registry.o.login())
	}
	return err
}

// mostTold bounds what is listed to tell what there is.
const mostTold = 1000
