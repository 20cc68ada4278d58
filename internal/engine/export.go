package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// maxEntries bounds the entries of an engine's archive: an image of MaxLayers
// layers has some four a layer.
const maxEntries = 16 * image.MaxLayers

// ErrUnexportable is the cause of the fault that Export.Next returns for an image
// that the engine itself cannot export.
var ErrUnexportable = errors.New("the engine cannot export an image without layers")

// Export reads an image out of the engine (GET /images/{name}/get): one
// sequential stream, in the engine's own order. It is not safe for concurrent use.
type Export struct {
	client  *Client
	ctx     context.Context
	img     Image
	save    func() (io.ReadCloser, error)
	stream  io.ReadCloser // nil before the first Next and after the last
	archive *tar.Reader
	entries int
	names   *names
	pass    int
}

// Item is one part of an image. Its bytes are not verified yet.
//
// Of a containerd image store each blob is one, in no order that helps. What it
// is, only documents tell, so its first bytes do: a Document may turn out to be
// a layer that is JSON.
type Item struct {
	Document bool         // the config, of a containerd image store any document; else a layer
	Digest   image.Digest // the image ID or the document's digest, the layer's diffID or digest
	Media    string       // of a layer: what image.Descriptor.MediaType is to be, "" for a plain tar
	Size     int64        // bytes that Body holds
	Body     io.Reader    // valid until the next call of Next or Close
}

// Export begins an export. Only the first Next asks the engine. Images are
// exported one at a time, by ID: in an export of several the names of layers
// could not be told. The caller closes it.
func (c *Client) Export(ctx context.Context, img Image) *Export {
	x := &Export{client: c, ctx: ctx, img: img, names: newNames(img)}
	x.save = x.ask
	return x
}

// Next skips what is left of the last item and returns the next, io.EOF behind
// the last. Each layer comes at least once, the config too, unless the engine
// left it out. An Item's Body fails with a fault when the engine breaks off.
func (x *Export) Next() (Item, error) {
	for {
		if x.stream == nil {
			if err := x.open(); err != nil {
				return Item{}, err
			}
		}
		item, err := x.next()
		if err == io.EOF && x.pass == 1 && x.names.learned() {
			// Some layers came under names that could not be told before their
			// bytes were hashed. Now they can: read the export once more.
			x.client.log.Debug("reading the export twice: its layer names are unknown", "image", x.img.ID)
			x.Close()
			continue
		}
		if err != nil && err != io.EOF {
			return Item{}, x.broken(err)
		}
		return item, err
	}
}

// Close ends the export, also in the middle. It may be called again.
func (x *Export) Close() error {
	if x.stream == nil {
		return nil
	}
	stream := x.stream
	x.stream = nil
	return stream.Close()
}

func (x *Export) open() error {
	stream, err := x.save()
	if err != nil {
		return err
	}
	x.pass++
	x.stream, x.entries = stream, 0
	x.archive = tar.NewReader(stream)
	return nil
}

// ask requests the archive from the engine.
func (x *Export) ask() (io.ReadCloser, error) {
	stream, err := x.client.api.ImageSave(x.ctx, []string{x.img.ID.String()})
	switch {
	case err == nil:
		return stream, nil
	case strings.Contains(err.Error(), "empty export"):
		return nil, fault.Wrap(fault.Refused, ErrUnexportable, "%s", x.img).
			Advise("Classic image stores cannot export such an image: add a layer to it.")
	case errdefs.IsNotFound(err):
		return nil, fault.New(fault.NotFound, "%s is gone from the engine at %s", x.img, x.client.host)
	default:
		return nil, x.client.failure(x.ctx, err, "cannot export %s", x.img)
	}
}

func (x *Export) next() (Item, error) {
	for {
		h, err := x.archive.Next()
		if err != nil {
			return Item{}, err
		}
		if x.entries++; x.entries > maxEntries {
			return Item{}, fmt.Errorf("its archive has more than %d entries", maxEntries)
		}
		name, err := safeName(h.Name)
		if err != nil {
			return Item{}, err
		}
		if h.Typeflag == tar.TypeSymlink || h.Typeflag == tar.TypeLink {
			// A layer that occurs again: its bytes come under the other name.
			if _, err := safeName(path.Join(path.Dir(name), h.Linkname)); err != nil || path.IsAbs(h.Linkname) {
				return Item{}, fmt.Errorf("its archive links %q to %q", name, h.Linkname)
			}
			continue
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if h.PAXRecords["GNU.sparse.major"] != "" || h.PAXRecords["GNU.sparse.map"] != "" {
			return Item{}, fmt.Errorf("its archive has a sparse entry %.100q", name) // no engine writes one; it may be exabytes of zeros
		}
		item := Item{Size: h.Size, Body: &exportBody{x}}
		switch kind, digest := x.names.identify(name); kind {
		case namedConfig:
			item.Document, item.Digest = true, x.img.ID
			return item, nil
		case namedBlob:
			return x.blob(item, digest)
		case namedLayer:
			item.Digest = digest
			return item, nil
		case namedV1JSON:
			if err := x.names.readV1(path.Dir(name), x.archive, h.Size); err != nil {
				return Item{}, err
			}
		case namedUnknownLayer:
			if err := x.learn(name); err != nil {
				return Item{}, err
			}
		}
	}
}

// sniffed is how many of a blob's first bytes tell what it is: a tar has its mark
// behind the first 257.
const sniffed = 512

// blob finds out what a blob of a containerd image store is.
func (x *Export) blob(item Item, digest image.Digest) (Item, error) {
	head := make([]byte, min(sniffed, item.Size))
	if _, err := io.ReadFull(x.archive, head); err != nil {
		return Item{}, err
	}
	item.Digest, item.Body = digest, io.MultiReader(bytes.NewReader(head), item.Body)
	switch {
	case item.Size <= image.MaxDocument && bytes.HasPrefix(bytes.TrimLeft(head, " \t\r\n"), []byte("{")):
		item.Document = true
	case !isTar(head):
		item.Media = "application/octet-stream"
	}
	return item, nil
}

// isTar reports whether bytes begin a tar, also an empty one.
func isTar(head []byte) bool {
	return len(head) == sniffed && (string(head[257:262]) == "ustar" || len(bytes.Trim(head, "\x00")) == 0)
}

// learn hashes a layer to know it by name in the next pass.
func (x *Export) learn(name string) error {
	h := sha256.New()
	if _, err := io.Copy(h, x.archive); err != nil {
		return err
	}
	x.names.set(name, image.Digest(h.Sum(nil)))
	return nil
}

// broken says in the user's words that the stream ended too early.
func (x *Export) broken(err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return err
	}
	if x.ctx.Err() != nil {
		return fmt.Errorf("export of %s: %w", x.img, x.ctx.Err())
	}
	return fault.Wrap(fault.Other, err, "the engine at %s broke off the export of %s", x.client.host, x.img).
		Advise("See the engine's log. What is stored stays: run the same push again.")
}

// exportBody reads the archive's current entry.
type exportBody struct{ x *Export }

func (b *exportBody) Read(p []byte) (int, error) {
	n, err := b.x.archive.Read(p)
	if err != nil && err != io.EOF {
		err = b.x.broken(err)
	}
	return n, err
}

// safeName refuses names that would leave a folder if they were unpacked.
// dogestry unpacks nothing, but an engine does not send such names, so
// whatever sent this is no engine.
func safeName(name string) (string, error) {
	clean := path.Clean(name)
	if path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") {
		return "", fmt.Errorf("its archive has an entry named %.100q", name)
	}
	return clean, nil
}
