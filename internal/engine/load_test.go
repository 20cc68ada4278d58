package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
)

const (
	loadedID   = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	loadedLine = `{"stream":"Loaded image ID: ` + loadedID + `\n"}` + "\n"
)

func TestLoadAnswers(t *testing.T) {
	for what, c := range map[string]struct {
		status int
		answer string
		loaded int
		want   string // part of the error; "" for none
	}{
		"loaded":              {200, `{"status":"Loading layer","progressDetail":{"current":1,"total":2},"id":"a"}` + "\r\n" + loadedLine, 1, ""},
		"loaded by name":      {200, `{"stream":"Loaded image: a:1\n"}`, 0, ""},
		"loaded, twice":       {200, loadedLine + loadedLine, 2, ""},
		"a strange ID":        {200, `{"stream":"Loaded image ID: sha256:xyz\n"}`, 0, ""},
		"nothing":             {200, "", 0, ""}, // the caller looks whether the image is there
		"error":               {200, `{"errorDetail":{"message":"much wrong"},"error":"much wrong"}`, 0, "much wrong"},
		"error detail alone":  {200, `{"errorDetail":{"message":"much wrong"}}`, 0, "much wrong"},
		"error behind loaded": {200, loadedLine + `{"error":"much wrong"}`, 0, "much wrong"},
		"error as stream":     {200, `{"stream":"Loaded image: x\n"}{"stream":"Error unpacking image x: much wrong\n"}`, 0, "Error unpacking image x: much wrong"},
		"invalid diffID":      {200, `{"error":"invalid diffID for layer 1: expected \"a\", got \"b\""}`, 0, "invalid diffID"},
		"broken JSON":         {200, `{"stream":`, 0, "answer broke off"},
		"no JSON":             {200, "such text", 0, "answer broke off"},
		"other JSON":          {200, `[1,2]`, 0, "answer broke off"},
		"wrong types":         {200, `{"error":{"a":1}}`, 0, "answer broke off"},
		"500":                 {500, `{"message":"much trouble"}`, 0, "much trouble"},
		"404, html":           {404, `<html>`, 0, "cannot load"},
	} {
		t.Run(what, func(t *testing.T) {
			f := &fake{load: says(c.status, c.answer)}
			ids, err := f.connect(t).Load(t.Context(), strings.NewReader("archive"))
			switch {
			case c.want == "" && err != nil:
				t.Errorf("error %v", err)
			case c.want != "" && (!fault.Is(err, fault.Other) || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v, want %q", err, c.want)
			}
			if len(ids) != c.loaded {
				t.Errorf("loaded %v, want %d", ids, c.loaded)
			}
		})
	}
}

func TestLoadLacksLayer(t *testing.T) {
	text := `{"error":"open /data/tmp/docker-import-123/blobs/sha256/` + strings.Repeat("ab", 32) + `: no such file or directory"}`
	f := &fake{load: says(http.StatusOK, text)}
	_, err := f.connect(t).Load(t.Context(), strings.NewReader("archive"))
	if !errors.Is(err, ErrLacksLayer) {
		t.Errorf("error %v", err)
	}
	// A file that lacks elsewhere is not for the caller to mend by sending more.
	f = &fake{load: says(http.StatusOK, `{"error":"open /data/tmp/x: no such file or directory"}`)}
	if _, err := f.connect(t).Load(t.Context(), strings.NewReader("archive")); err == nil || errors.Is(err, ErrLacksLayer) {
		t.Errorf("error %v", err)
	}
}

func TestLoadNoSpace(t *testing.T) {
	for _, h := range []http.HandlerFunc{
		says(http.StatusOK, `{"error":"write /data/tmp/x: no space left on device"}`),
		says(http.StatusInternalServerError, `{"message":"write /data/tmp/x: no space left on device"}`),
	} {
		f := &fake{load: h}
		_, err := f.connect(t).Load(t.Context(), strings.NewReader("archive"))
		if !fault.Is(err, fault.Other) || !strings.Contains(err.Error(), "no space left") || !strings.Contains(fault.AdviceOf(err), "docker system df") {
			t.Errorf("error %v, advice %q", err, fault.AdviceOf(err))
		}
	}
}

// TestLoadEndlessAnswers: an answer without end is given up, by its length or by the user, and never a success.
func TestLoadEndlessAnswers(t *testing.T) {
	for what, c := range map[string]struct {
		answer   http.HandlerFunc
		canceled bool // the engine says nothing, so that only the user can end it
	}{
		"messages": {endless(http.StatusOK, []byte(`{"stream":"0123456789012345678901234567890123456789012345678"}`+"\r\n")), false},
		"one string": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"stream":"`)
			endless(http.StatusOK, []byte("a"))(w, r)
		}, false},
		"hanging":      {func(w http.ResponseWriter, r *http.Request) { flush(w); <-r.Context().Done() }, true},
		"never begins": {func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); <-r.Context().Done() }, true},
	} {
		t.Run(what, func(t *testing.T) {
			f := &fake{load: c.answer}
			client := f.connect(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.canceled {
				defer time.AfterFunc(200*time.Millisecond, cancel).Stop()
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := client.Load(ctx, strings.NewReader("archive"))
			runtime.ReadMemStats(&after)
			if err == nil || errors.Is(err, context.Canceled) != c.canceled {
				t.Errorf("error %v", err)
			}
			if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > allowed {
				t.Errorf("%d MiB held", grown>>20)
			}
		})
	}
}

// TestLoadArchiveBreaks: the archive's own error comes out, and the engine never sees an archive that ended well.
func TestLoadArchiveBreaks(t *testing.T) {
	broken := errors.New("much broken")
	for _, early := range []bool{false, true} { // whether the engine answers before it has read all
		ended := make(chan error, 1)
		f := &fake{load: func(w http.ResponseWriter, r *http.Request) {
			if early {
				_ = http.NewResponseController(w).EnableFullDuplex()
				_, _ = io.WriteString(w, loadedLine)
				flush(w)
			}
			_, err := io.Copy(io.Discard, r.Body)
			ended <- err
		}}
		client := f.connect(t)
		body := io.MultiReader(bytes.NewReader(make([]byte, 1<<20)), slow{}, iotest.ErrReader(broken))
		if _, err := client.Load(t.Context(), body); !errors.Is(err, broken) {
			t.Errorf("early %v: error %v", early, err)
		}
		if err := <-ended; err == nil {
			t.Errorf("early %v: the engine saw a whole archive", early)
		}
	}
}

// slow is an empty reader that takes its time.
type slow struct{}

func (slow) Read([]byte) (int, error) { time.Sleep(100 * time.Millisecond); return 0, io.EOF }

func TestLoadEngineHangsUp(t *testing.T) {
	for _, read := range []int64{0, 1000, 1 << 20} {
		f := &fake{load: func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, read)
			hangUp()
		}}
		_, err := f.connect(t).Load(t.Context(), io.LimitReader(zeros{}, 8<<20))
		if !fault.Is(err, fault.Other) {
			t.Errorf("after %d bytes: error %v", read, err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestLoadPassesOverProgress(t *testing.T) {
	answer := `{"status":"Loading layer","id":"aa"}{"status":"Loading layer","id":"bb"}{"status":"x"}` + loadedLine
	f := &fake{load: says(http.StatusOK, answer)}
	ids, err := f.connect(t).Load(t.Context(), strings.NewReader("archive"))
	if err != nil || !slices.Equal(ids, []image.ID{mustDigest(t, loadedID)}) {
		t.Errorf("loaded %v, error %v", ids, err)
	}
}
