package agent

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/image"
	"github.com/dogestry/dogestry/internal/transfer"
)

const (
	tick  = 250 * time.Millisecond // between two looks at what has moved
	alive = 10 * time.Second       // between two events at most
)

// ServeHTTP answers version 1 of what an agent can be asked. Who may ask is not its
// business: that is for what stands before it.
func (a *Agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	switch method := map[string]string{pullPath: http.MethodPost, statusPath: http.MethodGet}[r.URL.Path]; {
	case method == "":
		refuse(w, http.StatusNotFound, fault.New(fault.NotFound, "there is no %.100q", r.URL.Path))
	case method != r.Method && !(method == http.MethodGet && r.Method == http.MethodHead):
		w.Header().Set("Allow", method)
		refuse(w, http.StatusMethodNotAllowed, fault.New(fault.Usage, "%s takes %s", r.URL.Path, method))
	case r.URL.Path == statusPath:
		writeJSON(w, http.StatusOK, a.status())
	default:
		a.answerPull(w, r)
	}
}

func refuse(w http.ResponseWriter, code int, err error) {
	writeJSON(w, code, refusal{failureOf(err)})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	content, err := json.Marshal(v)
	if err != nil {
		panic(err) // no type that is answered can fail
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(content, '\n'))
}

// codes are the HTTP statuses of requests that are not begun, by the kind of their fault.
var codes = map[fault.Kind]int{
	fault.Usage:    http.StatusBadRequest,
	fault.NotFound: http.StatusNotFound,
	fault.Refused:  http.StatusForbidden,
	fault.Locked:   http.StatusServiceUnavailable,
	fault.Other:    http.StatusServiceUnavailable,
}

func (a *Agent) answerPull(w http.ResponseWriter, r *http.Request) {
	// Web pages cannot send this type without asking first.
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, fault.New(fault.Usage, "a request is application/json"))
		return
	}
	o, err := a.order(r.Body)
	var j *job
	var leave func()
	if err == nil {
		j, leave, err = a.jobs.join(o)
	}
	if err != nil {
		if fault.Is(err, fault.Refused) {
			a.stats.refused()
		}
		code := codes[fault.KindOf(err)]
		if code == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", "5")
		}
		refuse(w, code, err)
		return
	}
	defer leave()
	defer a.stats.wait()()
	w.Header().Set("Content-Type", "application/x-ndjson")
	a.tell(r, w, j)
}

// order reads a request, and makes of it what may be pulled.
func (a *Agent) order(body io.Reader) (order, error) {
	var q Request
	d := json.NewDecoder(io.LimitReader(body, maxRequest+1))
	d.DisallowUnknownFields() // something newer may be asked for, that must not be left out
	err := d.Decode(&q)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something comes behind it")
		}
	}
	switch {
	case err != nil:
		return order{}, fault.Wrap(fault.Usage, err, "it does not understand the request")
	case len(q.Images) == 0 || len(q.Images) > maxImages:
		return order{}, fault.New(fault.Usage, "a request is for 1 to %d images, and this one for %d", maxImages, len(q.Images))
	case q.AllPlatforms && q.Platform != "":
		return order{}, fault.New(fault.Usage, "a request is for one platform or for all, and not both")
	}
	o := order{ids: map[string]image.ID{}, options: transfer.Options{AllPlatforms: q.AllPlatforms, DryRun: q.DryRun, Parallel: a.o.Parallel}}
	if o.remote, err = a.o.Allowed.remote(q.Remote); err != nil {
		return o, err
	}
	if q.Platform != "" {
		if o.options.Platform, err = transfer.ParsePlatform(q.Platform); err != nil {
			return o, fault.New(fault.Usage, "%s", err)
		}
	}
	for _, i := range q.Images {
		if err := o.add(i, a.o.Allowed); err != nil {
			return o, err
		}
	}
	return o, nil
}

// add adds an image. Both of its names have to be allowed: that in the engine would else
// replace something that is none of the caller's business.
func (o *order) add(i Image, allowed Allowed) (err error) {
	var img transfer.PullImage
	if img.Source, err = parse(i.Source); err == nil {
		err = allowed.image(img.Source)
	}
	if err == nil && i.Target != "" {
		if img.Target, err = parse(i.Target); err == nil {
			err = allowed.image(img.Target)
		}
		if err == nil && !img.Target.Digest.IsZero() {
			err = fault.New(fault.Usage, "%s: a name in an engine has no digest", i.Target)
		}
	}
	if err == nil && i.ID != "" {
		var id image.ID
		if id, err = image.ParseDigest(i.ID); err != nil {
			err = fault.New(fault.Usage, "%s", err)
		}
		o.ids[img.Source.String()] = id
	}
	o.images = append(o.images, img)
	return err
}

func parse(name string) (image.Reference, error) {
	ref, err := image.ParseReference(name)
	if err != nil {
		err = fault.New(fault.Usage, "%s", err)
	}
	return ref, err
}

// callIt calls the remote in an event as callers do.
func (e *event) callIt(r Remote) {
	e.Note = r.tell(e.Note)
	if e.Status != nil {
		status := r.tell(*e.Status)
		e.Status = &status
	}
	if e.Result != nil && e.Result.Error != nil {
		f := e.Result.Error
		f.Message, f.Advice = r.tell(f.Message), r.tell(f.Advice)
	}
}

// tell answers with what happens to j until it is done, or the client is gone.
func (a *Agent) tell(r *http.Request, w http.ResponseWriter, j *job) {
	control := http.NewResponseController(w)
	lines := json.NewEncoder(w)
	t := time.NewTicker(tick)
	defer t.Stop()
	var c cursor
	last := time.Now()
	for {
		var ended bool
		select {
		case <-j.done: // looked at before the feed is, so that all of it is told
			ended = true
		default:
		}
		news := j.feed.since(&c)
		if ended {
			news = append(news, event{Result: &outcome{Images: append([]transfer.Result{}, j.results...), Error: failureOf(j.err)}})
		}
		for i := range news {
			news[i].callIt(j.order.remote)
		}
		if len(news) == 0 && time.Since(last) > a.alive {
			news = append(news, event{Alive: true})
		}
		for _, e := range news {
			if lines.Encode(e) != nil {
				return
			}
		}
		if len(news) > 0 {
			last = time.Now()
			if control.Flush() != nil {
				return
			}
		}
		if ended {
			return
		}
		select {
		case <-t.C:
		case <-j.done:
		case <-r.Context().Done():
			return
		}
	}
}
