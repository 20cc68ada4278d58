package page

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/dogestry/dogestry/internal/remote"
)

const (
	// maxTags bounds the tags that are listed, which is about 50 MB. Who has more sees these.
	maxTags = 200_000
	// fresh is for how long a list of tags is shown as it was: somebody who turns pages
	// does not make a bucket list ten thousand tags each time.
	fresh = 5 * time.Second
)

// listed is all tags of a remote, listed by one request at a time.
type listed struct {
	source remote.Source
	now    func() time.Time

	turn chan struct{} // whose turn it is may use the rest
	all  tagList
	at   time.Time
}

// tagList is in order of repositories, then the newest tags first.
type tagList struct {
	tags []remote.Tag // nobody changes it
	cut  bool         // there are more
}

func newListed(source remote.Source, now func() time.Time) *listed {
	return &listed{source: source, now: now, turn: make(chan struct{}, 1)}
}

// get returns the tags, at most as old as fresh.
func (l *listed) get(ctx context.Context) (tagList, error) {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return tagList{}, ctx.Err()
	}
	began := l.now()
	if age := began.Sub(l.at); l.all.tags != nil && age >= 0 && age < fresh {
		return l.all, nil
	}
	list := tagList{tags: []remote.Tag{}}
	for tag, err := range l.source.References(ctx, "") {
		if err != nil {
			return tagList{}, err
		}
		if len(list.tags) == maxTags {
			list.cut = true
			break
		}
		list.tags = append(list.tags, tag)
	}
	if err := ctx.Err(); err != nil {
		return tagList{}, err
	}
	slices.SortFunc(list.tags, func(a, b remote.Tag) int {
		return cmp.Or(
			cmp.Compare(a.Reference.Repository, b.Reference.Repository),
			b.Modified.Compare(a.Modified),
			b.Reference.Compare(a.Reference), // where the remote does not know, "2" is newer than "1"
		)
	})
	l.all, l.at = list, began
	return list, nil
}

// of returns the tags of a repository, the newest first.
func (l tagList) of(repository string) []remote.Tag {
	from, _ := slices.BinarySearchFunc(l.tags, repository, func(t remote.Tag, name string) int {
		return cmp.Compare(t.Reference.Repository, name)
	})
	to := from
	for to < len(l.tags) && l.tags[to].Reference.Repository == repository {
		to++
	}
	return l.tags[from:to:to]
}

// near returns at most n tags that are likely to share layers with an image of a
// repository: the newest of that, then the newest of all others.
func (l tagList) near(repository string, n int) []remote.Tag {
	own := l.of(repository)
	near := slices.Clone(own[:min(n, len(own))])
	if len(near) == n {
		return near
	}
	others := slices.DeleteFunc(slices.Clone(l.tags), func(t remote.Tag) bool { return t.Reference.Repository == repository })
	slices.SortStableFunc(others, func(a, b remote.Tag) int { return b.Modified.Compare(a.Modified) })
	return append(near, others[:min(n-len(near), len(others))]...)
}
