// Package original reads images of format 1.0, those that the original dogestry
// wrote, and presents them as what they are today: a config, and layers by their
// diffIDs (docs/format.md, "Entries of format 1.0"). Nothing proves their bytes, so
// everything here goes by what entries say, within bounds.
package original

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/remote"
)

// Entry is one of an image's: what one command of its Dockerfile made.
type Entry struct {
	ID     image.Digest
	Parent image.Digest // zero of the lowest
	Layer  remote.Layer // see remote.Original; without an Object where Throwaway is set

	Throwaway bool // it has no layer

	history history
}

// Image is an image of format 1.0.
type Image struct {
	ID      image.Digest // of the top entry: what the tag names
	Entries []Entry      // bottom first; where Read has failed, those that it has read

	top []byte // json of the top entry
}

// IsNamed reports whether id, which a tag names, is an image of format 1.0.
func IsNamed(ctx context.Context, in remote.Source, id image.ID) (bool, error) {
	_, err := in.Document(ctx, id)
	if errors.Is(err, remote.ErrOriginal) {
		return true, nil
	}
	if fault.Is(err, fault.Damaged) { // whoever reads it says so
		err = nil
	}
	return false, err
}

// Reader reads images of one remote. It is safe for concurrent use. Entries that
// several images share are read once, so it is for one command, and not for longer.
type Reader struct {
	From remote.Originals

	mu    sync.Mutex
	known map[image.Digest]Entry
	size  int // bytes of their json
}

// mostRemembered bounds the json of the entries that are remembered, in bytes: some
// 40,000 entries. The others are read each time.
const mostRemembered = 64 << 20

// Read walks the chain of the image whose top entry is id. Its Damaged faults
// name the object that is wrong; the image is then returned too, as far as it was
// read. That an entry lacks its layer is told by Layers, not here.
func (r *Reader) Read(ctx context.Context, id image.ID) (*Image, error) {
	img := &Image{ID: id}
	var err error
	size := int64(0)
	seen := map[image.Digest]bool{}
	for next := id; !next.IsZero() && err == nil; {
		var e Entry
		var n int
		if e, n, err = r.entry(ctx, img, next); err != nil {
			if next != id {
				err = lacks(err, next)
			}
			break
		}
		img.Entries = append(img.Entries, e)
		seen[e.ID], next = true, e.Parent
		size += int64(n)
		switch {
		case seen[next]:
			err = wrong(e, fmt.Sprintf("its parent %s is above it too", next.Short()))
		case !next.IsZero() && len(img.Entries) == image.MaxLayers:
			err = wrong(e, fmt.Sprintf("there are more than %d entries from %s on", image.MaxLayers, id.Short()))
		case size > image.MaxTree:
			err = wrong(e, fmt.Sprintf("the json files from %s on have more than %d bytes", id.Short(), image.MaxTree))
		}
	}
	slices.Reverse(img.Entries)
	return img, err
}

// entry returns an entry, and how many bytes were read for it.
func (r *Reader) entry(ctx context.Context, img *Image, id image.Digest) (Entry, int, error) {
	r.mu.Lock()
	e, known := r.known[id]
	r.mu.Unlock()
	if known && id != img.ID { // of the top the json is needed
		return e, 0, nil
	}
	found, err := r.From.Original(ctx, id)
	if err != nil {
		return Entry{}, 0, err
	}
	if id == img.ID {
		img.top = found.JSON
	}
	if e, err = parse(found); err != nil {
		return Entry{}, 0, wrong(e, err.Error())
	}
	r.remember(e, len(found.JSON))
	return e, len(found.JSON), nil
}

func (r *Reader) remember(e Entry, size int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.known[e.ID]; known || r.size+size > mostRemembered {
		return
	}
	if r.known == nil {
		r.known = map[image.Digest]Entry{}
	}
	r.known[e.ID] = e
	r.size += size
}

// lacks adds to the fault of a parent that is missing what that may be.
func lacks(err error, parent image.Digest) error {
	var where *remote.Damage
	if !errors.As(err, &where) || !where.Missing {
		return err
	}
	return fault.Wrap(fault.Damaged, where, "the image needs entry %s, which is not here", parent.Hex()).
		Advise("The original dogestry could leave out a base image. Copy images/%s/ here from a repository that has it, or push the image again from an engine.", parent.Hex())
}

// wrong is the fault of an entry that says what cannot be.
func wrong(e Entry, how string) error {
	where := &remote.Damage{Object: e.Layer.Source, Text: e.Layer.Source + ": " + how}
	return fault.Wrap(fault.Damaged, where, "entry %s of format 1.0 is damaged", e.ID.Short())
}

// parse reads what matters of a json. Of what is beside it, nothing is refused.
func parse(found remote.Original) (Entry, error) {
	e := Entry{ID: found.ID, Layer: found.Layer}
	if _, err := image.Members(found.JSON, "id", "parent", "throwaway"); err != nil {
		return e, err
	}
	var j struct {
		ID        string `json:"id"`
		Parent    string `json:"parent"`
		Throwaway bool   `json:"throwaway"`
		*history
		ContainerConfig struct {
			Cmd words
		} `json:"container_config"`
	}
	j.history = &e.history
	if err := json.Unmarshal(found.JSON, &j); err != nil {
		return e, err
	}
	e.history.CreatedBy, e.history.EmptyLayer = strings.Join(j.ContainerConfig.Cmd, " "), false
	if j.ID != e.ID.Hex() {
		return e, fmt.Errorf("its id is %.80q, and not that of the entry", j.ID)
	}
	if j.Parent != "" {
		var err error
		if e.Parent, err = image.ParseHex(j.Parent); err != nil {
			return e, fmt.Errorf("its parent: %w", err)
		}
	}
	if e.Throwaway = j.Throwaway; e.Throwaway {
		e.Layer.Object = ""
	}
	return e, nil
}

// words are a list of texts, or one text.
type words []string

func (w *words) UnmarshalJSON(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	var list []string
	err := json.Unmarshal(b, &list)
	if err != nil {
		list = make([]string, 1)
		err = json.Unmarshal(b, &list[0])
	}
	*w = list
	return err
}

// Layers returns the layers of an image, bottom first. Its error is the Damaged
// fault of the lowest that is missing.
func (m *Image) Layers() ([]remote.Layer, error) {
	var layers []remote.Layer
	for _, e := range m.Entries {
		switch {
		case e.Throwaway:
		case e.Layer.Object == "":
			return nil, Lacks(e)
		default:
			layers = append(layers, e.Layer)
		}
	}
	return layers, nil
}

// Lacks is the fault of an entry whose layer is not there.
func Lacks(e Entry) error {
	object := strings.TrimSuffix(e.Layer.Source, "json") + "layer.tar"
	where := &remote.Damage{Object: object, Missing: true, Text: object + " is missing, and so is layer.tar.lz4"}
	return fault.Wrap(fault.Damaged, where, "entry %s of format 1.0 is incomplete", e.ID.Short()).
		Advise("Copy it here from a repository that has it, or push the image again from an engine.")
}

// Created returns when the image was made, nil where it does not say.
func (m *Image) Created() *time.Time {
	if n := len(m.Entries); n > 0 && !m.Entries[n-1].history.Created.IsZero() {
		return &m.Entries[n-1].history.Created
	}
	return nil
}

// History returns the commands that made the image, the first one first.
func (m *Image) History() []ocispec.History {
	all := make([]ocispec.History, len(m.Entries))
	for i, e := range m.Entries {
		h := e.history
		all[i] = ocispec.History{Created: &h.Created, CreatedBy: h.CreatedBy, Author: h.Author, Comment: h.Comment, EmptyLayer: e.Throwaway}
	}
	return all
}

// Runs returns the platform of an image, and how it is run.
func (m *Image) Runs() (image.Platform, ocispec.ImageConfig, error) {
	var top struct {
		OS           string    `json:"os"`
		Architecture string    `json:"architecture"`
		Variant      string    `json:"variant"`
		Config       runConfig `json:"config"`
	}
	if err := json.Unmarshal(m.top, &top); err != nil {
		return image.Platform{}, ocispec.ImageConfig{}, wrong(m.Entries[len(m.Entries)-1], err.Error())
	}
	c := top.Config
	return image.Platform{OS: top.OS, Architecture: top.Architecture, Variant: top.Variant}, ocispec.ImageConfig{
		User: c.User, ExposedPorts: c.ExposedPorts, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd,
		Volumes: c.Volumes, WorkingDir: c.WorkingDir, Labels: c.Labels, StopSignal: c.StopSignal,
	}, nil
}

// Named is a tag on an image of format 1.0.
type Named struct {
	Reference image.Reference
	ID        image.ID
}

// finders bounds the tags that Find asks about at once. It is for remotes far away.
const finders = 64

// Find returns those of refs, where there are none of all tags, that name images of
// format 1.0, in order. Tags that are damaged, or gone by now, are none, unless they are of refs.
func Find(ctx context.Context, in remote.Source, refs []image.Reference) ([]Named, error) {
	asked := len(refs) > 0
	refs = slices.Clone(refs)
	if !asked {
		for tag, err := range in.References(ctx, "") {
			if err != nil {
				return nil, err
			}
			refs = append(refs, tag.Reference)
		}
	}
	slices.SortFunc(refs, image.Reference.Compare)
	refs = slices.Compact(refs)
	found := make([]Named, len(refs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(finders)
	for i, ref := range refs {
		g.Go(func() error {
			id, err := in.Resolve(gctx, ref)
			if !asked && (fault.Is(err, fault.NotFound) || fault.Is(err, fault.Damaged)) {
				return gctx.Err()
			}
			is := false
			if err == nil {
				is, err = IsNamed(gctx, in, id)
			}
			if is {
				found[i] = Named{ref, id}
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found, func(n Named) bool { return n.ID.IsZero() }), ctx.Err()
}
