package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/term"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/transfer"
)

// streamName stands for stdin, or stdout.
const streamName = "-"

// streamBuffer is how much is read or written at once, in bytes.
const streamBuffer = 1 << 20

func isTerminal(f any) bool {
	file, ok := f.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(file.Fd()))
}

// stdout is what results are written to, as it was given.
func (a *app) stdout() io.Writer {
	if r, ok := a.out.(*results); ok {
		return r.w
	}
	return a.out
}

// openInput opens a file, or stdin. Reads end with ctx. The caller closes it.
func (a *app) openInput(ctx context.Context, name string) (io.ReadCloser, error) {
	f := a.in
	if name != streamName {
		var err error
		f, err = os.Open(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, fault.Wrap(fault.NotFound, causeOf(err), "no bundle at %s", name).Advise("`dogestry export` makes bundles. The remote comes first: `dogestry import REMOTE BUNDLE`.")
		case err != nil:
			return nil, fault.Wrap(fault.Refused, causeOf(err), "cannot read the bundle %s", name)
		}
	}
	info, err := f.Stat()
	if err != nil {
		return nil, fault.Wrap(fault.Other, err, "cannot read the bundle %s", name)
	}
	if info.IsDir() {
		return nil, fault.New(fault.Usage, "%s is a directory, not a bundle", name).Advise("`dogestry copy` copies from one remote to another.")
	}
	if info.Mode().IsRegular() {
		return f, nil // what nobody needs is passed over
	}
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { _ = w.CloseWithError(ctx.Err()) })
	go func() { // nothing interrupts the read of a pipe: after ctx it ends with the process
		_, err := io.CopyBuffer(w, struct{ io.Reader }{f}, make([]byte, streamBuffer))
		_ = w.CloseWithError(err)
	}()
	return r, nil
}

// causeOf is why something could not be done with a file, without the file's name, which
// the fault has: that may be a temporary one's.
func causeOf(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}

// linked returns what a symbolic link leads to, which need not be there, and what is
// no link as it is.
func linked(name string) string {
	for range 40 { // as many as Linux follows
		to, err := os.Readlink(name)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			dir, _ := filepath.Split(name)
			to = dir + to // not cleaned: dir may be a link, too
		}
		name = to
	}
	return name
}

// writeOutput lets write write a file, which is there once all of it is, or stdout.
// A symbolic link stays one. It returns how many bytes were written.
func (a *app) writeOutput(ctx context.Context, name string, write func(io.Writer) error) (int64, error) {
	if name == streamName {
		return writeStream(ctx, a.out, write)
	}
	info, err := os.Stat(name)
	to := linked(name)
	switch {
	case err == nil && info.IsDir():
		return 0, fault.New(fault.Usage, "-o %s is a directory", name).Advise("Name a file: -o bundle.tar.")
	case err == nil && (!info.Mode().IsRegular() || !isAt(to, info)): // a pipe, a tape, /dev/stdout: there is nothing to rename
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return 0, fault.Wrap(fault.Refused, causeOf(err), "cannot write %s", name)
		}
		n, err := writeStream(ctx, f, write)
		return n, errors.Join(err, f.Close())
	}
	dir, base := filepath.Split(to)
	temporary := dir + fmt.Sprintf(".%.200s.%016x.tmp", base, rand.Uint64())
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, fault.Wrap(fault.NotFound, causeOf(err), "cannot write %s", name).
			Advise("Its directory is missing: mkdir -p %q", filepath.Clean(dir))
	case err != nil:
		return 0, fault.Wrap(fault.Refused, causeOf(err), "cannot write %s", name)
	}
	defer os.Remove(temporary) // not there any more once it is renamed
	defer f.Close()
	out := bufio.NewWriterSize(f, streamBuffer)
	if err := write(out); err != nil {
		return 0, err
	}
	info, err = settle(out, f)
	if err == nil {
		err = os.Rename(temporary, to)
	}
	if err != nil {
		return 0, fault.Wrap(fault.Other, causeOf(err), "cannot write %s", name)
	}
	return info.Size(), nil
}

// isAt reports whether a file is the one of that name.
func isAt(name string, file fs.FileInfo) bool {
	info, err := os.Lstat(name)
	return err == nil && os.SameFile(info, file)
}

// settle makes sure that a file is on its disk, and closes it.
func settle(out *bufio.Writer, f *os.File) (fs.FileInfo, error) {
	if err := out.Flush(); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	return info, errors.Join(err, f.Close())
}

// writeStream is writeOutput to what may block for ever.
func writeStream(ctx context.Context, to io.Writer, write func(io.Writer) error) (int64, error) {
	type end struct {
		n   int64
		err error
	}
	r, w := io.Pipe()
	defer context.AfterFunc(ctx, func() { _ = r.CloseWithError(ctx.Err()) })()
	ended := make(chan end, 1)
	go func() { // nothing interrupts the write to a pipe: after ctx it ends with the process
		n, err := io.CopyBuffer(struct{ io.Writer }{to}, r, make([]byte, streamBuffer))
		_ = r.CloseWithError(err)
		ended <- end{n, err}
	}()
	out := bufio.NewWriterSize(w, streamBuffer)
	err := write(out)
	if err == nil {
		err = out.Flush()
	}
	_ = w.CloseWithError(err)
	if err != nil { // who reads may have gone, or may never read on
		return 0, err
	}
	select {
	case e := <-ended:
		return e.n, e.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// shipped is what an export or import came to.
type shipped struct {
	transfer.Shipment
	verb, past     string
	remote, bundle string
	size           int64 // of the bundle, in bytes; 0 where it was not written
	dryRun         bool
	listOnly       bool
	took           time.Duration
	err            error // why it stopped, if it did not do all
}

// printShipped prints a line an image on stdout, unless the bundle goes there, and
// what moved on stderr. It returns the shipment's error.
func (a *app) printShipped(s shipped) error {
	s.err = a.orSignal(s.err)
	if a.json {
		if s.err != nil && len(s.Images) == 0 {
			return s.err // the one JSON document is then the error
		}
		return a.printDocument(struct {
			Remote  string                 `json:"remote"`
			Bundle  string                 `json:"bundle,omitempty"`
			Images  []transfer.Shipped     `json:"images"` // that are in the bundle (export), or in the remote (import)
			Layers  []transfer.LayerResult `json:"layers"` // moved: it went into the bundle, or came out of it
			DryRun  bool                   `json:"dryRun,omitempty"`
			Size    int64                  `json:"size,omitempty"` // of the bundle, in bytes
			Seconds float64                `json:"seconds"`
			Error   *failure               `json:"error,omitempty"` // what stopped it before it had done all
		}{s.remote, s.bundle, s.Images, s.Layers, s.dryRun, s.size, s.took.Seconds(), failureOf(s.err)}, s.err)
	}
	if s.verb != "export" || s.bundle != streamName {
		for _, img := range s.Images {
			fmt.Fprintln(a.out, img.Image, img.ID)
		}
	}
	if !a.quiet && len(s.Images) > 0 {
		fmt.Fprintln(a.errOut, s.summary())
	}
	return s.err
}

// summary says in one line how much moved and how much was spared.
func (s shipped) summary() string {
	text := s.past
	if s.dryRun {
		text = "would " + s.verb
	}
	text += " " + count(len(s.Images), "image")
	if s.listOnly {
		return fmt.Sprintf("%s as a list, with %s", text, count(len(s.Layers), "layer"))
	}
	r := transfer.Result{Layers: s.Layers}
	moved, size, stored := r.Moved()
	spared, sparedSize, _ := r.Spared()
	if moved == 0 {
		text += ": no layers to move"
	} else {
		text += fmt.Sprintf(": moved %s, %s (%s stored)", count(moved, "layer"), bytes(size), bytes(stored))
	}
	if spared > 0 {
		text += fmt.Sprintf(", spared %s, %s", count(spared, "layer"), bytes(sparedSize))
	}
	if s.size > 0 {
		text += fmt.Sprintf(", a bundle of %s", bytes(s.size))
	}
	if !s.dryRun {
		text += fmt.Sprintf(" in %.1fs", s.took.Seconds())
	}
	return text
}
