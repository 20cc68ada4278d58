package front

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dogestry/dogestry/internal/image"
)

// maxOther bounds, in bytes, a body where none is expected.
const maxOther = 64 << 10

// comeAgain is when a request that had no turn is to come again, in seconds.
const comeAgain = "5"

// turns bounds what runs at once.
type turns chan struct{}

func newTurns(n int) turns { return make(turns, n) }

// take takes a turn, where one is free.
func (t turns) take() (release func(), ok bool) {
	select {
	case t <- struct{}{}:
		return func() { <-t }, true
	default:
		return nil, false
	}
}

// wait takes a turn when one is free, and gives up when ctx ends.
func (t turns) wait(ctx context.Context) (release func(), ok bool) {
	if release, ok := t.take(); ok {
		return release, true
	}
	select {
	case t <- struct{}{}:
		return func() { <-t }, true
	case <-ctx.Done():
		return nil, false
	}
}

// turn waits a while until a request may be answered: engines that pull at once open
// more connections than there are turns, and take no refusal lightly. Where it
// may not, it is told to come again. A blob on its way in or to where it stays needs two
// turns, so that pushes leave pulls some.
func (f *front) turn(x *exchange, r *http.Request) (release func(), ok bool) {
	ctx, cancel := context.WithTimeout(r.Context(), f.o.Wait)
	defer cancel()
	endUpload := func() {}
	// An upload ends with a PUT that may be empty, and makes a blob of all that has come.
	if x.route == uploadRoute && (r.ContentLength != 0 || r.Method == http.MethodPut) {
		// First the one of which there are fewer: who waits for it holds no other.
		if endUpload, ok = f.uploads.wait(ctx); !ok {
			f.o.Metrics.refused("uploads")
			x.comeAgain("too many uploads at once")
			return nil, false
		}
	}
	endRequest, ok := f.requests.wait(ctx)
	if !ok {
		endUpload()
		f.o.Metrics.refused("requests")
		x.comeAgain("too many requests at once")
		return nil, false
	}
	return func() { endRequest(); endUpload() }, true
}

// comeAgain answers 503. Engines give up on 429, and try again after this.
func (x *exchange) comeAgain(why string) {
	x.Header().Set("Retry-After", comeAgain)
	x.fail(http.StatusServiceUnavailable, "UNAVAILABLE", why)
}

// bound bounds the body of a request, and refuses one that says itself that it is too large.
func (f *front) bound(x *exchange, r *http.Request) bool {
	most, what := int64(maxOther), "a body here"
	switch x.route {
	case manifestRoute:
		most, what = image.MaxDocument, "a manifest"
	case uploadRoute:
		most, what = f.o.MaxBlob, "a blob"
	}
	if max(r.ContentLength, rangeEnd(r.Header.Get("Content-Range"))) > most {
		f.o.Metrics.refused("size")
		x.fail(http.StatusRequestEntityTooLarge, "SIZE_INVALID", what+" may have "+strconv.FormatInt(most, 10)+" bytes")
		return false
	}
	r.Body = http.MaxBytesReader(x, r.Body, most)
	return true
}

// rangeEnd returns how large a blob is at least by the Content-Range "first-last" of a
// chunk, 0 where that does not tell.
func rangeEnd(s string) int64 {
	_, last, _ := strings.Cut(strings.TrimPrefix(s, "bytes "), "-")
	last, _, _ = strings.Cut(last, "/")
	n, err := strconv.ParseInt(last, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return max(n, n+1) // the largest has no next one
}

// pace tells a body that comes too slowly to be meant well: one that trickles, a
// byte before each stall, would hold its turn for ever.
type pace struct {
	stall  time.Duration
	bytes  int64
	waited time.Duration // for the other side alone
}

// minPace is in bytes a second, over all the time that was waited.
const minPace = 256

// tooSlow counts n bytes that were waited for.
func (p *pace) tooSlow(n int, waited time.Duration) bool {
	p.bytes += int64(n)
	p.waited += waited
	return p.waited > p.stall && float64(p.bytes) < minPace*p.waited.Seconds()
}
