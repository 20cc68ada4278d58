package repo

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
	"github.com/dogestry/dogestry/internal/storage"
)

const (
	// surveyFrom is how many entries must be asked for before one listing of all
	// of images/ is considered instead of a listing of each.
	surveyFrom = 512

	// surveyKeys is how many keys may be listed for each entry asked for. Where
	// 1,000 keys come in one page, many more would still pay; in a directory a key
	// costs about a third of an entry that is looked up by itself.
	surveyKeys = 64

	hexDigits = "0123456789abcdef"
)

// files is what lies in an entry, as far as it matters there.
type files struct {
	json    bool
	version string           // of json
	layers  map[string]int64 // files of a layer, or a blob, and their sizes in bytes
	held    []image.Digest   // of an index: the manifests that are here
}

func (f *files) add(name string, info storage.Info) {
	if name == entryJSON {
		f.json, f.version = true, version(info)
	} else if id, err := image.ParseHex(strings.TrimPrefix(name, heldBase)); err == nil && strings.HasPrefix(name, heldBase) {
		f.held = append(f.held, id)
	} else if _, ok := codecOf(name); ok {
		if f.layers == nil {
			f.layers = make(map[string]int64, 1)
		}
		f.layers[name] = info.Size
	}
}

// filesOf says what lies in an entry; nil where nothing does.
type filesOf func(context.Context, image.Digest) (*files, error)

// files lists one entry.
func (r *Repo) files(ctx context.Context, id image.Digest) (*files, error) {
	var f *files
	prefix := entryPrefix(id)
	for info, err := range r.store.List(ctx, prefix) {
		if unlists(err) {
			return r.filesByName(ctx, id)
		}
		if err != nil {
			return nil, err
		}
		if f == nil {
			f = &files{}
		}
		f.add(strings.TrimPrefix(info.Key, prefix), info)
	}
	return f, nil
}

// version returns the version of an object, for remote.Tag.Version. The time
// is part of it: content that is replaced, read, and put back has the same
// ETag as before, and what was read meanwhile is not what it stands for.
func version(info storage.Info) string {
	if info.Version == "" {
		return ""
	}
	return image.DigestOf(fmt.Appendf(nil, "%s %d", info.Version, info.Modified.UnixNano())).Hex()[:32]
}

// documentVersion is that of the document and of what it is said to have here.
func (f *files) documentVersion() string {
	if len(f.held) == 0 || f.version == "" {
		return f.version
	}
	slices.SortFunc(f.held, func(a, b image.Digest) int { return bytes.Compare(a[:], b[:]) })
	return image.DigestOf(fmt.Appendf(nil, "%s %s", f.version, f.held)).Hex()[:32]
}

// Look looks the entries of c up: one by one where they are few, else in one
// listing of images/.
func (r *Repo) Look(ctx context.Context, c remote.Closure, known map[image.Digest]remote.Layer) (*remote.Found, error) {
	filesOf, err := r.filesOf(ctx, c)
	if err != nil {
		return nil, r.failure(err, "cannot look into %s", r.name)
	}
	found := &remote.Found{
		Documents: make(map[image.Digest]string, len(c.Documents)),
		Layers:    make(map[image.Digest]remote.Layer, len(c.Layers)),
		Torn:      map[image.Digest]error{},
	}
	documents := make([]*files, len(c.Documents))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for i, id := range c.Documents {
		g.Go(func() (err error) {
			documents[i], err = filesOf(gctx, id)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, r.failure(err, "cannot look into %s", r.name)
	}
	looked := make(map[image.Digest]*files, len(documents))
	for i, in := range documents {
		looked[c.Documents[i]] = in
		if in != nil && in.json {
			found.Documents[c.Documents[i]] = in.documentVersion()
		}
	}
	// Nobody may know which of the two something is.
	layers, torn, err := r.layers(ctx, c.Layers, func(ctx context.Context, id image.Digest) (*files, error) {
		if in, ok := looked[id]; ok {
			return in, nil
		}
		return filesOf(ctx, id)
	}, known)
	if err != nil {
		return nil, err
	}
	for i, id := range c.Layers {
		if torn[i] != nil {
			found.Torn[id] = r.incomplete(torn[i])
		} else {
			found.Layers[id] = layers[i].Layer
		}
	}
	return found, nil
}

// filesOf returns the cheaper way to look at all entries of c.
func (r *Repo) filesOf(ctx context.Context, c remote.Closure) (filesOf, error) {
	n := len(c.Documents) + len(c.Layers)
	if n < surveyFrom {
		return r.files, nil
	}
	// Names are sha256 sums, so a 256th of them tells how many there are.
	seen, most := 0, n*surveyKeys/256
	for _, err := range r.store.List(ctx, imagesPrefix+"00") {
		if unlists(err) {
			return r.files, nil
		}
		if err != nil {
			return nil, err
		}
		if seen++; seen > most {
			return r.files, nil
		}
	}
	survey, err := r.survey(ctx, c)
	return func(_ context.Context, id image.Digest) (*files, error) { return survey[id], nil }, err
}

// survey lists images/ and keeps what c asks for.
func (r *Repo) survey(ctx context.Context, c remote.Closure) (map[image.Digest]*files, error) {
	wanted := make(map[image.Digest]bool, len(c.Documents)+len(c.Layers))
	for _, ids := range [][]image.Digest{c.Documents, c.Layers} {
		for _, id := range ids {
			wanted[id] = true
		}
	}
	return gather(ctx, r.store, func(id image.Digest) bool { return wanted[id] }, (*files).add)
}

// gather lists all of images/, in parts at once, and lets add tell a T of each
// object of the entries that are wanted.
func gather[T any](ctx context.Context, store storage.Store, wanted func(image.Digest) bool, add func(in *T, name string, info storage.Info)) (map[image.Digest]*T, error) {
	var parts [len(hexDigits)]map[image.Digest]*T
	g, gctx := errgroup.WithContext(ctx)
	for i, digit := range hexDigits {
		parts[i] = map[image.Digest]*T{}
		g.Go(func() error {
			for info, err := range store.List(gctx, imagesPrefix+string(digit)) {
				if err != nil {
					return err
				}
				id, name, ok := parseEntryKey(info.Key)
				if !ok || !wanted(id) {
					continue // nobody's, or not asked for
				}
				if parts[i][id] == nil {
					parts[i][id] = new(T)
				}
				add(parts[i][id], name, info)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all := parts[0]
	for _, part := range parts[1:] {
		maps.Copy(all, part)
	}
	return all, nil
}
