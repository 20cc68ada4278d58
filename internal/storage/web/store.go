// Package web is a directory that a web server publishes as a storage.Store that can be
// read (RFC 9110). Any server will do that answers GET and HEAD; one that answers ranges
// lets broken downloads go on.
//
// HTTP has no lists. Those that nginx (autoindex_format json) and Caddy (file_server
// browse) give as JSON are read; elsewhere List fails with errors.ErrUnsupported.
package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/storage"
)

// Store is a directory on a web server, to be read: Put and Delete fail with
// errors.ErrUnsupported. It is safe for concurrent use. Whoever opens it calls Close.
type Store struct {
	o           Options
	client      *http.Client
	transport   *http.Transport
	credentials *credentials // nil where there are none
	mostListed  int          // maxListing, but in tests

	listing sync.Mutex // for what follows
	lists   *bool      // whether the server gives lists; nil until it was asked
}

var _ storage.Store = (*Store)(nil)

// Open reads the files that the options name. It contacts nobody.
func Open(o Options) (*Store, error) {
	o = o.withDefaults()
	s := &Store{o: o, mostListed: maxListing}
	var err error
	if o.Base.Scheme == "https" {
		if s.credentials, err = o.credentials(); err != nil {
			return nil, err
		}
	}
	if s.transport, err = o.transport(); err != nil {
		return nil, err
	}
	s.client = &http.Client{Transport: s.transport, CheckRedirect: s.redirect}
	return s, nil
}

// Close closes idle connections. The store may be used again after it.
func (s *Store) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// name is an object as a user would name it, for messages.
func (s *Store) name(key string) string { return s.o.url() + "/" + key }

// at is the URL of a key, or of a directory where it ends with a slash.
func (s *Store) at(key string) string {
	elements := strings.Split(key, "/")
	for i, element := range elements {
		elements[i] = url.PathEscape(element)
	}
	return s.o.url() + "/" + strings.Join(elements, "/")
}

// Stat implements storage.Store.
func (s *Store) Stat(ctx context.Context, key string) (storage.Info, error) {
	if err := storage.ValidKey(key); err != nil {
		return storage.Info{}, err
	}
	answer, err := s.ask(ctx, http.MethodHead, s.at(key), nil)
	if err != nil {
		return storage.Info{}, s.failure(ctx, key, err)
	}
	answer.Body.Close()
	switch {
	case answer.StatusCode != http.StatusOK:
		return storage.Info{}, s.failure(ctx, key, &status{answer.StatusCode})
	case answer.ContentLength < 0:
		return storage.Info{}, s.failure(ctx, key, errors.New("the server does not say how long it is"))
	}
	return storage.Info{Key: key, Size: answer.ContentLength, Modified: modified(answer.Header)}, nil
}

// modified is when an object came to be there: where the server does not say so, a
// moment ago.
func modified(h http.Header) time.Time {
	if t, err := http.ParseTime(h.Get("Last-Modified")); err == nil {
		return t
	}
	return time.Now()
}

// readOnly is the error of writes.
func (s *Store) readOnly(key string) error {
	return fault.Wrap(fault.Refused, errors.ErrUnsupported, "%s: a web server can only be read", s.name(key))
}

// Put implements storage.Store: it fails, and does not touch body.
func (s *Store) Put(_ context.Context, key string, _ io.Reader) error {
	if err := storage.ValidKey(key); err != nil {
		return err
	}
	return s.readOnly(key)
}

// Delete implements storage.Store: it fails.
func (s *Store) Delete(_ context.Context, key string) error {
	if err := storage.ValidKey(key); err != nil {
		return err
	}
	return s.readOnly(key)
}

// status is an answer that is no success.
type status struct{ code int }

func (e *status) Error() string {
	return strings.TrimSpace(fmt.Sprintf("the server answers %d %s", e.code, http.StatusText(e.code)))
}
