package verify

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Problem is what is wrong with an object.
type Problem string

// The problems.
const (
	Missing    Problem = "missing"
	Damaged    Problem = "damaged"    // it decodes to something that nobody asked for, or does not decode
	Truncated  Problem = "truncated"  // it ends too early
	Swapped    Problem = "swapped"    // it is another layer of this remote
	Metadata   Problem = "metadata"   // what it says of a layer is not true, and the layer is
	WrongTag   Problem = "tag"        // its content is no ID
	WrongKind  Problem = "kind"       // it is what its name says, and no document that is needed there
	Unmarked   Problem = "unmarked"   // an index none of whose platforms is said to be here
	Manifest   Problem = "manifest"   // the one that follows from a config, or the pointer to it, is another
	Outside    Problem = "outside"    // whole, and it says that a part of the image is to be had elsewhere
	Unreadable Problem = "unreadable" // it cannot be read, for another reason than its bytes
)

// words is what an object is that has the problem.
func (p Problem) words() string {
	switch p {
	case Swapped:
		return "another layer"
	case Metadata:
		return "not true"
	case WrongTag:
		return "no ID"
	case WrongKind:
		return "of the wrong kind"
	case Manifest:
		return "wrong"
	case Outside:
		return "pointing outside"
	}
	return string(p)
}

// Finding is something that is wrong.
type Finding struct {
	Object  string            `json:"object"` // the remote's own name for it
	Problem Problem           `json:"problem"`
	Detail  string            `json:"detail"`
	Images  []image.Reference `json:"images"` // that need it

	// Frames are what is damaged of a layer with a chunk index, as far as that is known; MoreFrames is
	// how many runs besides.
	Frames     []Frames `json:"frames,omitempty"`
	MoreFrames int      `json:"moreFrames,omitempty"`

	Repaired bool   `json:"repaired"`
	Failure  string `json:"failure,omitempty"` // why it could not be repaired, where that was tried
}

// Note is about an object that is whole all the same.
type Note struct {
	Object string `json:"object"` // as in a Finding
	Detail string `json:"detail"`
}

// finding is a Finding on its way.
type finding struct {
	Finding        // Images is for tags that name no image
	images  []*img // that need it
	cure    cure
}

// cure is what has to be written again. The zero value: nothing helps.
type cure struct {
	document image.Digest
	layer    image.Descriptor
	again    []*layer // those that are proved again then
	config   *config  // whose manifest is to be restored
	unmarked image.Digest
}

func (c cure) isZero() bool {
	return c.document.IsZero() && c.layer.Digest.IsZero() && c.config == nil && c.unmarked.IsZero()
}

// hides reports whether it is not known what the object names.
func (f *finding) hides() bool {
	return f.Problem != Outside && f.cure.layer.Digest.IsZero() && f.cure.config == nil
}

// told is the finding as it is reported.
func (f *finding) told() Finding {
	told := f.Finding
	told.Images = slices.Clone(f.Images)
	for _, m := range f.images {
		told.Images = append(told.Images, m.names()...)
	}
	slices.SortFunc(told.Images, image.Reference.Compare)
	told.Images = slices.Compact(told.Images)
	return told
}

func sortFindings(all []Finding) {
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Problem, b.Problem), cmp.Compare(a.Detail, b.Detail))
	})
}

// found notes a finding, once for each object and problem however many images it
// was met by.
func (r *run) found(f *finding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.open[f.key()]; known != nil {
		known.join(f)
		return
	}
	r.open[f.key()] = f
	r.findings = append(r.findings, f)
	switch n := len(r.findings); {
	case n <= mostNotes:
		text := fmt.Sprintf("%s is %s", f.Object, f.Problem.words())
		if len(f.Frames) > 0 {
			text += " " + f.Frames[0].String()
		}
		r.o.Progress.Note(text)
	case n == mostNotes+1:
		r.o.Progress.Note("and more, all of which are told at the end")
	}
}

// mostNotes bounds the findings that are told as soon as they are found.
const mostNotes = 10

// findingKey tells findings apart.
type findingKey struct {
	object  string
	problem Problem
}

func (f *finding) key() findingKey { return findingKey{f.Object, f.Problem} }

// close takes findings off the list of those that are open. It returns those that were.
func (r *run) close(all []*finding) (closed []*finding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range all {
		if r.open[f.key()] == f {
			delete(r.open, f.key())
			closed = append(closed, f)
		}
	}
	return closed
}

func (f *finding) join(o *finding) {
	f.Images = append(f.Images, o.Images...)
	for _, m := range o.images {
		if !slices.Contains(f.images, m) {
			f.images = append(f.images, m)
		}
	}
	for _, l := range o.cure.again {
		if !slices.Contains(f.cure.again, l) {
			f.cure.again = append(f.cure.again, l)
		}
	}
}

// findingOf makes a finding of a Damaged fault. Object is its name where the
// fault has none.
func findingOf(err error, problem Problem, object string, c cure, images ...*img) *finding {
	f := &finding{Finding: Finding{Object: object, Problem: problem, Detail: err.Error()}, cure: c, images: images}
	var where *remote.Damage
	if errors.As(err, &where) {
		f.Object = where.Object
		if where.Missing {
			f.Problem = Missing
		}
	}
	return f
}

// objectOf is the remote's name for a document, as far as it tells.
func (r *run) objectOf(id image.Digest) string {
	if a, ok := r.from.(remote.Auditor); ok {
		return a.ObjectOf(id)
	}
	return id.String()
}
