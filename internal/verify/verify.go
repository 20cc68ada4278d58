// Package verify proves what a remote holds: every byte that a tag reaches is read
// and compared with the digest that names it. It names what is damaged, and lets
// a Mender write that again.
package verify

import (
	"cmp"
	"context"
	"log/slog"
	"runtime"
	"slices"
	"sync"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/original"
	"github.com/dogestry/dogestry/internal/remote"
)

// Options say what is verified, and what becomes of damage.
type Options struct {
	Images   []image.Reference // which; empty means all tags
	Part     Part              // of the layers; documents and tags are read always
	Parallel int               // layers read at once; 0 means as many as there are processors
	Progress Progress          // nil tells nobody
	Log      *slog.Logger

	// Sealed: a document that points outside is a finding, which nothing mends.
	Sealed bool

	// Mender writes again what is damaged. Nil changes nothing.
	Mender Mender

	// Unreferenced is told each entry that no tag reaches. It may be nil.
	Unreferenced func(remote.Entry)
}

// Progress is told how far it is. Its methods are safe for concurrent use and
// return at once.
type Progress interface {
	Status(text string)  // what is waited for; an empty text ends it
	Note(text string)    // something that stays on the screen
	Reading(bytes int64) // so many bytes are to be read now; 0 ends it
	Read(n int)          // so many of them have been
}

// Mender writes to a remote again what it has lost.
type Mender interface {
	// Mend writes what it can of a loss: those bytes and nothing else, and no tag.
	// What it could not write shows when it is read again; its error says why. A
	// NotFound or Damaged fault is about this loss alone, any other about all.
	Mend(ctx context.Context, loss remote.Loss) error
}

// Report is what was found.
type Report struct {
	Images    int   // that tags name, each once
	Members   int   // manifests that no tag names, and that belong to a repository, or refer to another; each once
	Documents int   // that were read
	Layers    int   // that were read
	Bytes     int64 // of those layers, as their digests name them

	Findings []Finding // in the order of objects
	Notes    []Note    // in the order of objects
	Unproved []Unproved
	Stopped  error // why not all that could be was written again

	// Unreferenced is nil where it was not asked for, or cannot be known: of some
	// images, or where documents are damaged.
	Unreferenced *Unreferenced
}

// Left returns how many findings are not repaired.
func (r *Report) Left() int { return r.count(func(Finding) bool { return true }) }

// LeftOf returns how many of them have a problem.
func (r *Report) LeftOf(p Problem) int {
	return r.count(func(f Finding) bool { return f.Problem == p })
}

func (r *Report) count(is func(Finding) bool) (n int) {
	for _, f := range r.Findings {
		if !f.Repaired && is(f) {
			n++
		}
	}
	return n
}

// Unproved is an image that was read, and that nothing proves.
type Unproved struct {
	Images []image.Reference `json:"images"`
	Why    string            `json:"why"`
}

// Unreferenced is what no tag reaches: what a push that is under way has written,
// or what tags named that were moved or removed.
type Unreferenced struct {
	Entries int   `json:"entries"`
	Bytes   int64 `json:"bytes"`
}

// Run verifies. Damage is no error of its: it goes on, and the report tells all.
// Its error is what kept it from going on, such as the end of ctx, or a remote
// that is gone; the report then has what was found until then. Memory grows with
// the number of entries, and with no layer's size.
func Run(ctx context.Context, from remote.Source, o Options) (*Report, error) {
	if o.Parallel <= 0 {
		o.Parallel = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = nobody{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &run{
		from: from, o: o,
		images: map[image.ID]*img{}, layers: map[image.Digest]*layer{}, configs: map[image.Digest]*config{},
		documents: map[image.Digest]bool{}, open: map[findingKey]*finding{}, old: map[image.Digest]*oldEntry{},
	}
	if from, ok := from.(remote.Originals); ok {
		r.originals = &original.Reader{From: from}
	}
	err := r.all(ctx)
	o.Progress.Status("")
	return r.report(), err
}

type nobody struct{}

func (nobody) Status(string) {}
func (nobody) Note(string)   {}
func (nobody) Reading(int64) {}
func (nobody) Read(int)      {}

// run is one verification on its way.
type run struct {
	from remote.Source
	o    Options

	order []*img // in the order in which tags name them; this and its elements are set before mu is needed

	mu        sync.Mutex
	images    map[image.ID]*img
	layers    map[image.Digest]*layer
	configs   map[image.Digest]*config
	documents map[image.Digest]bool // that were read
	toLook    []*layer              // that were not looked up yet
	toRead    []*layer              // that were, and not read yet
	toAudit   []*config
	findings  []*finding              // all of them, also those that were repaired
	open      map[findingKey]*finding // those that were not

	notes     []Note
	originals *original.Reader           // nil where the remote has no images of format 1.0
	old       map[image.Digest]*oldEntry // of such images
	unproved  []Unproved
	failures  int // to read something, since the last success

	readLayers   int
	readBytes    int64
	unreferenced *Unreferenced
	stopped      error
}

// img is an image that tags name, or a manifest that belongs to repositories.
type img struct {
	id      image.ID
	tags    []image.Reference
	members []image.Reference // by its digest
	reread  bool              // it was read before
	tried   string            // what a Mender was last asked for
}

func (r *run) all(ctx context.Context) error {
	if err := r.resolve(ctx); err != nil {
		return err
	}
	if err := r.readImages(ctx, r.order); err != nil {
		return err
	}
	if err := r.prove(ctx); err != nil {
		return err
	}
	if r.o.Mender != nil {
		if err := r.repair(ctx); err != nil {
			return err
		}
	}
	if err := r.confirm(ctx); err != nil {
		return err
	}
	return r.countUnreferenced(ctx)
}

// prove looks at, reads and audits what is known and not proved yet.
func (r *run) prove(ctx context.Context) error {
	if err := r.look(ctx); err != nil {
		return err
	}
	if err := r.readAll(ctx); err != nil {
		return err
	}
	if err := r.readOldLayers(ctx); err != nil {
		return err
	}
	return r.audit(ctx)
}

func (r *run) report() *Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	tagged := 0
	for _, m := range r.order {
		if len(m.tags) > 0 {
			tagged++
		}
	}
	report := &Report{
		Images: tagged, Members: len(r.order) - tagged, Documents: len(r.documents), Layers: r.readLayers, Bytes: r.readBytes,
		Findings: []Finding{}, Unproved: r.unprovedOf(), Unreferenced: r.unreferenced, Stopped: r.stopped,
	}
	for _, f := range r.findings {
		if f.Repaired || r.open[f.key()] == f { // not one that was found anew by a repair
			report.Findings = append(report.Findings, f.told())
		}
	}
	sortFindings(report.Findings)
	slices.SortFunc(r.notes, func(a, b Note) int { return cmp.Compare(a.Object, b.Object) })
	report.Notes = slices.Compact(slices.Clone(r.notes))
	return report
}

// lasting reports whether err is about what was to be read, and not about the way
// to it.
func lasting(err error) bool { return fault.Is(err, fault.Damaged) }

// mostFailures is how many objects in a row may be unreadable, for other reasons
// than damage, before the remote is given up.
const mostFailures = 16

// success says that something could be read.
func (r *run) success() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = 0
}

// failure notes that an object could not be read. It returns the error that ends
// the run, if this is one: a sector that cannot be read is a finding, a remote
// that is gone is not.
func (r *run) failure(ctx context.Context, err error, object string, c cure, images ...*img) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.mu.Lock()
	r.failures++
	gone := r.failures >= mostFailures
	r.mu.Unlock()
	if gone {
		return err
	}
	r.found(&finding{Finding: Finding{Object: object, Problem: Unreadable, Detail: err.Error()}, cure: c, images: images})
	return nil
}
