package transfer

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// CopyImage is an image to copy: as the source knows it, and as the target is to.
type CopyImage struct {
	Source image.Reference
	Target image.Reference // has a tag, and no digest

	// Moves is what Target is known to name: it is moved only while it does. Zero
	// moves it whatever it names.
	Moves image.ID
}

// CopyOptions are Options, and what only copies have.
type CopyOptions struct {
	Options
	From, To string // the remotes as the user named them, for messages

	// All means that the images are all tags of the source, or of Repositories
	// where there are any (see AllOf): one that cannot be copied does not stop the others.
	All          bool
	Repositories []string

	// Delete removes, once all are copied, the tags that the source does not have
	// from the target, of the same repositories, and the manifests that belong to them
	// there alone; only with All. Where the source
	// has none at all it takes Yes too.
	Delete, Yes bool

	pinned map[image.Reference]image.ID // what tags of the source are to be taken to name
}

// Copied is what a copy came to.
type Copied struct {
	Images  []Result  // those that the target has, in the order given
	Failed  []Failed  // with All: those that it has not, and why
	Removed []Removed // with Delete
	Members int       // with All: manifests that belong to a repository there, without being a tag's alone
}

// Failed is an image, or a tag to remove, with which something is wrong.
type Failed struct {
	Image image.Reference
	Err   error
}

// Removed is a tag that was removed, or would be, or by its digest a manifest that
// was taken out of its repository.
type Removed struct {
	Image image.Reference `json:"image"`
	ID    image.ID        `json:"id"`
}

// Resolve asks the source for the images, as Copy would: a name that is mistyped
// can be told before a remote is made for it.
func Resolve(ctx context.Context, from remote.Source, images []CopyImage) error {
	for _, img := range images {
		if _, err := from.Resolve(ctx, img.Source); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// imagesAtOnce bounds the images of a copy of all that are looked at at once.
// What their documents hold in memory is bounded by image.MaxTree each.
const imagesAtOnce = 4

// Copy moves images from one remote to another, layers in the bytes in which the
// source keeps them where both can, and tags each as soon as it is complete. It
// keeps IDs: the tag names what it names at the source, unless the image is compressed anew. A target that is published
// as a whole (remote.Committer) is so at the end, with all that came to it.
//
// It stops at the first failure and returns what was done before it; whole
// layers stay and a rerun goes on from there. With o.All it goes on with the other
// images where the failure is that of an image; its error is then a Partial
// fault, and nothing is removed.
func Copy(ctx context.Context, from remote.Source, to remote.Target, images []CopyImage, o CopyOptions) (Copied, error) {
	o.Options = o.withDefaults()
	if !o.DryRun {
		var end func(context.Context)
		to, end = remote.Begin(to, o.Progress.Status)
		defer end(ctx)
	}
	c := &copier{from: from, to: to, o: o, slots: make(chan struct{}, o.Parallel), flights: map[string]*flight{}, told: map[image.Digest]bool{}}
	done, err := c.copy(ctx, images)
	whole, isWhole := to.(remote.Committer)
	if !isWhole || o.DryRun || err != nil && (len(done.Images) == 0 || !fault.Is(err, fault.Partial)) {
		return done, err
	}
	o.Progress.Status("finishing " + o.To)
	if failed := whole.Commit(ctx); failed != nil {
		return Copied{Failed: done.Failed}, failed
	}
	return done, err
}

// copy copies the images that are meant.
func (c *copier) copy(ctx context.Context, images []CopyImage) (Copied, error) {
	o := c.o
	if !o.All {
		results, err := c.each(ctx, images)
		return Copied{Images: results}, err
	}
	if o.Delete {
		if _, err := c.untagger(); err != nil { // before anything moves
			return Copied{}, err
		}
	}
	done, err := c.all(ctx, images)
	if err == nil && !o.Recompress { // what no tag names is there for its digest
		err = c.members(ctx, &done)
	}
	switch {
	case err != nil:
	case len(done.Failed) > 0:
		err = c.partial(len(done.Failed), len(done.Failed)+len(done.Images)+done.Members)
	case o.Delete:
		done.Removed, done.Failed, err = c.prune(ctx, images)
	}
	return done, err
}

// copier is what the images of one copy share. It is safe for concurrent use.
type copier struct {
	from remote.Source
	to   remote.Target
	o    CopyOptions

	slots chan struct{} // taken by layers on their way
	tried atomic.Bool   // the target was tried for --if-absent

	mu      sync.Mutex
	flights map[string]*flight    // layers that are or were on their way, by objectOf
	told    map[image.Digest]bool // layers of which was said that they are there
}

// copying returns an image on its way between its repositories.
func (c *copier) copying(img CopyImage) *copying {
	return &copying{copier: c, from: remote.SourceOf(c.from, img.Source.Repository), to: remote.TargetFor(c.to, img.Target), image: img}
}

// each copies images one after the other, once all of them are found.
func (c *copier) each(ctx context.Context, images []CopyImage) ([]Result, error) {
	plan := make([]*copying, len(images))
	for i, img := range images { // fail before anything moves
		plan[i] = c.copying(img)
		if err := plan[i].find(ctx); err != nil {
			return nil, err
		}
		if err := plan[i].read(ctx); err != nil {
			return nil, err
		}
	}
	var results []Result
	planned := map[string]bool{}
	for _, p := range plan {
		result, err := p.run(ctx)
		if err != nil {
			return results, err
		}
		result.shareObjects(planned)
		results = append(results, result)
	}
	return results, nil
}

// all copies several images at once, and goes on where one cannot be copied.
func (c *copier) all(ctx context.Context, images []CopyImage) (Copied, error) {
	results := make([]*Result, len(images))
	failures := make([]error, len(images))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(imagesAtOnce)
	for i, img := range images {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			result, err := c.one(gctx, img)
			if err != nil && ofImage(err) {
				failures[i] = err
				return nil
			}
			results[i] = result
			return err
		})
	}
	err := g.Wait()
	var done Copied
	planned := map[string]bool{}
	for i, img := range images {
		if r := results[i]; r != nil {
			r.shareObjects(planned)
			done.Images = append(done.Images, *r)
		}
		if failures[i] != nil {
			done.Failed = append(done.Failed, Failed{img.Target, failures[i]})
		}
	}
	if err == nil {
		err = ctx.Err()
	}
	return done, err
}

// shareObjects lets a dry run count bytes once that several images of a copy share.
func (r *Result) shareObjects(planned map[string]bool) {
	if !r.DryRun {
		return
	}
	for i, l := range r.Layers {
		if l.Moved {
			r.Layers[i].Moved = !planned[l.object]
			planned[l.object] = true
		}
	}
}

// one copies one image of all. Its result is nil where the tag is gone.
func (c *copier) one(ctx context.Context, img CopyImage) (*Result, error) {
	p := c.copying(img)
	err := p.find(ctx)
	removed := fault.Is(err, fault.NotFound) // it was listed
	if err == nil {
		err = p.read(ctx)
	}
	var result Result
	if err == nil {
		result, err = p.run(ctx)
	}
	if removed || errors.Is(err, remote.ErrRemoved) {
		c.o.Log.Info("a tag was removed meanwhile", "image", img.Source)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &result, nil
}

// ofImage reports whether a failure is that of an image, and others may do better.
func ofImage(err error) bool {
	if fault.Interrupted(err) {
		return false
	}
	var wrong *image.TreeError
	switch fault.KindOf(err) {
	case fault.Damaged, fault.NotFound, fault.Refused, fault.Usage:
		return true
	}
	return errors.As(err, &wrong) // no image
}

func (c *copier) partial(failed, images int) error {
	f := fault.New(fault.Partial, "%d of %d images were not copied from %s to %s", failed, images, c.o.From, c.o.To)
	if c.o.Delete {
		return f.Advise("No tag was removed: that is done once all images are copied.")
	}
	return f
}

// AllOf returns all tags of the source, or of o.Repositories where there are
// any, in the order of their names. A repository without tags is NotFound. Where
// there are no tags at all and o.Delete is set, so that the target would lose
// all of its own, it takes o.Yes too.
func AllOf(ctx context.Context, from remote.Source, o CopyOptions) ([]CopyImage, error) {
	sure := o.Delete && o.Yes
	var images []CopyImage
	for _, repository := range scopes(o.Repositories) {
		tags, err := references(ctx, from, repository)
		if err != nil {
			return nil, err
		}
		if len(tags) == 0 && repository != "" && !sure {
			return nil, remote.NoSuchRepository(o.From, repository, from.References(ctx, ""))
		}
		for _, ref := range tags {
			images = append(images, CopyImage{Source: ref, Target: ref})
		}
	}
	if len(images) == 0 && o.Delete && !o.Yes {
		return nil, fault.New(fault.Refused, "%s has no tags: --delete would remove all tags from %s", o.From, o.To).
			Advise("Look whether %s is the right one. If it is meant to be empty, add --yes.", o.From)
	}
	slices.SortFunc(images, func(a, b CopyImage) int { return a.Source.Compare(b.Source) })
	return images, nil
}

// scopes are the repositories that are meant, each once; "" stands for all.
func scopes(repositories []string) []string {
	if len(repositories) == 0 {
		return []string{""}
	}
	return slices.Compact(slices.Sorted(slices.Values(repositories)))
}

// references lists the tags of a repository, "" for all.
func references(ctx context.Context, from remote.Source, repository string) ([]image.Reference, error) {
	var refs []image.Reference
	for tag, err := range from.References(ctx, repository) {
		if err != nil {
			return nil, err
		}
		refs = append(refs, tag.Reference)
	}
	return refs, ctx.Err()
}
