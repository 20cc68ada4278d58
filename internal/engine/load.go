package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

// ErrLacksLayer is returned by Load when the archive left out a layer that the
// engine turned out not to have.
var ErrLacksLayer = errors.New("the engine lacks a layer that it seemed to have")

// maxLoadAnswer bounds the engine's answer to a load, in bytes.
const maxLoadAnswer = 64 << 20

// Load sends an archive to the engine (POST /images/load) and reads the answer
// to its end: engines answer 200 before they unpack, and tell failures in the
// stream. It returns the IDs that the engine says it loaded.
//
// An error of archive or the end of ctx cuts the request off; the engine then
// throws away what it got.
func (c *Client) Load(ctx context.Context, archive io.Reader) ([]image.ID, error) {
	// The transport reads it in a goroutine of its own, and wraps its errors.
	source := &image.Watched{R: archive}
	answer, err := c.api.ImageLoad(ctx, source)
	if broken := source.Err(); broken != nil {
		if err == nil {
			answer.Close()
		}
		return nil, broken
	}
	if err != nil {
		return nil, c.failure(ctx, err, "cannot load the image")
	}
	defer answer.Close()
	limited := &io.LimitedReader{R: answer, N: maxLoadAnswer}
	ids, err := readLoadAnswer(limited)
	if err == nil && limited.N == 0 {
		err = errors.New("its answer does not end")
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("load interrupted: %w", ctx.Err())
	}
	if broken := source.Err(); broken != nil { // the engine had begun to answer before
		return nil, broken
	}
	switch {
	case errors.Is(err, ErrLacksLayer):
		return nil, err
	case err != nil:
		return nil, c.failure(ctx, err, "cannot load the image")
	}
	return ids, nil
}

// readLoadAnswer reads the stream of JSON messages that answers a load. An
// error anywhere in it, also one dressed as output, is the load's error.
func readLoadAnswer(r io.Reader) ([]image.ID, error) {
	var ids []image.ID
	messages := json.NewDecoder(r)
	for {
		var m struct {
			Stream      string `json:"stream"`
			Error       string `json:"error"`
			ErrorDetail struct {
				Message string `json:"message"`
			} `json:"errorDetail"`
		}
		err := messages.Decode(&m)
		if err == io.EOF {
			return ids, nil
		}
		if err != nil {
			return nil, fault.Wrap(fault.Other, err, "the engine's answer broke off")
		}
		if m.Error == "" {
			m.Error = m.ErrorDetail.Message
		}
		stream := strings.TrimSpace(m.Stream)
		if strings.HasPrefix(stream, "Error ") { // engine 28 and 29 with the containerd image store
			m.Error = stream
		}
		if m.Error != "" {
			return nil, loadError(m.Error)
		}
		if hex, ok := strings.CutPrefix(stream, "Loaded image ID: "); ok {
			if id, err := image.ParseDigest(hex); err == nil {
				ids = append(ids, id)
			}
		}
	}
}

func loadError(text string) error {
	// Classic stores look for a layer they lack in the unpacked archive.
	classic := strings.Contains(text, "no such file or directory") && strings.Contains(text, layerPath(""))
	// The containerd image store finds no blob. All that was sent is proved, so it was not sent.
	containerd := strings.Contains(text, "content store: content digest") && strings.Contains(text, "not found")
	if classic || containerd {
		return fmt.Errorf("%w: %s", ErrLacksLayer, text)
	}
	return errors.New(text)
}
