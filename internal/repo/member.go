package repo

import (
	"context"
	"errors"
	"iter"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/lease"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

var (
	_ remote.Memberships = (*Repo)(nil)
	_ remote.Memberships = (*session)(nil)
	_ remote.Members     = (*Repo)(nil)
	_ remote.Paged       = (*Repo)(nil)
)

// Add implements remote.Memberships.
func (r *Repo) Add(ctx context.Context, repository string, manifest image.Digest) error {
	return r.add(ctx, repository, manifest, nil)
}

// add is Add; rely is as in tag. A manifest with a subject is a referrer of that
// and nothing else, so that it does not outlive it.
func (r *Repo) add(ctx context.Context, repository string, manifest image.Digest, rely relier) error {
	if err := r.checkRepository(repository); err != nil {
		return err
	}
	tree, closure, _, err := r.reliable(ctx, manifest, rely)
	if err != nil {
		return err
	}
	about, err := image.ParseAbout(tree.Doc)
	if err != nil {
		return fault.Wrap(fault.Other, err, "%s cannot belong to %s in %s", manifest.Short(), repository, r.name)
	}
	key := memberOrReferrer(repository, manifest, about.Subject.Digest)
	conflict := func(other string) error {
		return fault.New(fault.Refused, "%s cannot belong to %s in %s: %s is in the way", manifest.Short(), repository, r.name, other).
			Advise("A repository cannot have the name of another repository and a digest. Choose another name.")
	}
	other, err := r.inTheWay(ctx, key)
	if err != nil {
		return err
	}
	if other != "" {
		return conflict(other)
	}
	if err := r.markRoot(ctx); err != nil {
		return r.failure(err, "cannot write to %s", r.name)
	}
	_, err = r.store.Stat(ctx, key)
	isNew := errors.Is(err, storage.ErrNotFound)
	if err != nil || !about.Subject.Digest.IsZero() { // that of a referrer anew: its age keeps it until the subject comes
		err = r.store.Put(r.guarded(ctx), key, strings.NewReader(""))
	}
	switch {
	case errors.Is(err, lease.ErrLost):
		return err
	case errors.Is(err, storage.ErrConflict):
		return conflict(key)
	case err != nil:
		return r.failure(err, "cannot let %s belong to %s in %s", manifest.Short(), repository, r.name)
	}
	return r.lookAgain(ctx, root{key, isNew, conflict}, manifest, closure)
}

// Add implements remote.Memberships.
func (s *session) Add(ctx context.Context, repository string, manifest image.Digest) error {
	return s.whileAlive(ctx, func() error { return s.add(ctx, repository, manifest, s.relyOnAll) })
}

// Remove implements remote.Memberships. It deletes nothing else (docs/format.md, D1 and D4).
func (r *Repo) Remove(ctx context.Context, repository string, manifest image.Digest) error {
	if err := r.checkRepository(repository); err != nil {
		return err
	}
	subject, err := r.subject(ctx, manifest)
	var torn *tornError
	switch {
	case err == nil && !subject.IsZero():
		err = r.store.Delete(ctx, referrerKey(repository, subject, manifest))
	case errors.As(err, &torn), errors.Is(err, errNoAbout): // nobody knows what it refers to
		err = r.removeReferrers(ctx, repository, manifest)
	}
	if err == nil {
		err = r.store.Delete(ctx, memberKey(repository, manifest))
	}
	return r.failure(err, "cannot take %s out of %s in %s", manifest.Short(), repository, r.name)
}

// removeReferrers deletes what says of a manifest that it refers to others, whatever these are.
func (r *Repo) removeReferrers(ctx context.Context, repository string, manifest image.Digest) error {
	for info, err := range r.store.List(ctx, repositoryReferrers(repository)) {
		if err != nil {
			return err
		}
		subject, id, ok := parseReferrer(info.Key)
		if !ok || id != manifest || info.Key != referrerKey(repository, subject, id) {
			continue
		}
		if err := r.store.Delete(ctx, info.Key); err != nil {
			return err
		}
	}
	return nil
}

// Belongs implements remote.Memberships.
func (r *Repo) Belongs(ctx context.Context, repository string, manifest image.Digest) (bool, error) {
	if err := r.checkRepository(repository); err != nil {
		return false, err
	}
	_, err := r.store.Stat(ctx, memberKey(repository, manifest))
	if err == nil || !errors.Is(err, storage.ErrNotFound) {
		return err == nil, r.failure(err, "cannot look into %s", r.name)
	}
	subject, err := r.subject(ctx, manifest)
	var torn *tornError
	if errors.As(err, &torn) || errors.Is(err, errNoAbout) || err == nil && subject.IsZero() {
		return false, nil
	}
	if err == nil {
		_, err = r.store.Stat(ctx, referrerKey(repository, subject, manifest))
	}
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	return err == nil, r.failure(err, "cannot look into %s", r.name)
}

// Referrers implements remote.Memberships.
func (r *Repo) Referrers(ctx context.Context, repository string, subject image.Digest) iter.Seq2[image.Digest, error] {
	return func(yield func(image.Digest, error) bool) {
		if err := r.checkRepository(repository); err != nil {
			yield(image.Digest{}, err)
			return
		}
		for info, err := range r.store.List(ctx, referrersOf(repository, subject)) {
			if unlists(err) {
				r.tellUnlisted()
				return
			}
			if err != nil {
				yield(image.Digest{}, r.failure(err, "cannot list %s", r.name))
				return
			}
			id, ok := parseMember(info.Key)
			if !ok || info.Key != referrerKey(repository, subject, id) { // another repository's, whose name begins so
				continue
			}
			if !yield(id, nil) {
				return
			}
		}
	}
}

// Members implements remote.Members: first those that refer to nothing.
func (r *Repo) Members(ctx context.Context, repository string) iter.Seq2[remote.Membership, error] {
	prefixes := []string{digestsPrefix, referrersPrefix}
	if repository != "" {
		prefixes = []string{memberPrefix(repository), repositoryReferrers(repository)}
	}
	return func(yield func(remote.Membership, error) bool) {
		for _, prefix := range prefixes {
			for info, err := range r.store.List(ctx, prefix) {
				if err != nil {
					yield(remote.Membership{}, r.failure(err, "cannot list %s", r.name))
					return
				}
				m, ok := parseMemberKey(info.Key)
				if !ok || repository != "" && m.Repository != repository {
					continue // nobody's, or another repository's, whose name begins so
				}
				m.Modified = info.Modified
				if !yield(m, nil) {
					return
				}
			}
		}
	}
}

// errNoAbout says that a document does not tell what it refers to: it was not added.
var errNoAbout = errors.New("no manifest that belongs to a repository")

// subject returns what a manifest refers to, zero where that is nothing. Its error
// is a *tornError where the manifest is not there, or errNoAbout.
func (r *Repo) subject(ctx context.Context, manifest image.Digest) (image.Digest, error) {
	doc, err := r.document(ctx, manifest)
	if err != nil {
		return image.Digest{}, err
	}
	about, err := image.ParseAbout(doc)
	if err != nil {
		return image.Digest{}, errNoAbout
	}
	return about.Subject.Digest, nil
}

// checkRepository refuses what is no name of a repository.
func (r *Repo) checkRepository(repository string) error {
	if !validRepository(repository) {
		return fault.New(fault.Usage, "%.300q is no repository in %s", repository, r.name).
			Advise("Names are as docker shows them: myapp, team/myapp, localhost:5000/myapp.")
	}
	return nil
}
