// Package rsync is a storage.Store in a module of an rsync server, by way of the
// system's rsync.
//
// rsync moves files and takes no streams: what goes there or comes from there lies
// in a spool on this machine's disk meanwhile. A run of it takes several round trips,
// so what is asked or written at the same time goes in one run, whoever asks.
package rsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dogestry/dogestry/internal/storage"
)

// Bounds of runs.
const (
	runsAtOnce = 6       // processes, and connections to the server
	together   = 256     // questions of one run
	smallMost  = 1 << 20 // bytes of an object that goes together with others
	readMost   = 64 << 20
)

// Store is a directory of a module of an rsync server. It is safe for concurrent use
// and needs no closing: where nothing is asked of it, it has no files and no processes.
type Store struct {
	o     Options
	path  string // of the program
	env   []string
	spool spool
	runs  chan struct{}
	large [2]chan struct{} // of one place for each of up and down: layers go one at a time

	puts    gatherer[*upload]
	deletes gatherer[string]
	stats   gatherer[*lookup]
	lists   gatherer[*listing]
	reads   gatherer[*smallRead]

	noSync    atomic.Bool // the server does not take --fsync
	noPartial atomic.Bool // nor --partial-dir
}

var (
	_ storage.Store       = (*Store)(nil)
	_ storage.SmallReader = (*Store)(nil)
	_ storage.Sweeper     = (*Store)(nil)
)

// Open looks for the program, and contacts nobody.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := o.Seal.Program(program); err != nil {
		return nil, err
	}
	env, err := environment(o)
	if err != nil {
		return nil, err
	}
	path, err := find(ctx, env)
	if err != nil {
		return nil, err
	}
	if o.Notify == nil {
		o.Notify = func(string) {}
	}
	s := &Store{o: o, path: path, env: env, runs: make(chan struct{}, runsAtOnce)}
	s.spool.place = o.Spool
	if s.spool.place == "" {
		s.spool.place = os.TempDir()
	}
	if s.spool.place, err = filepath.Abs(s.spool.place); err != nil { // rsync takes x:y for a host
		return nil, spoolFailure(s.spool.place, err)
	}
	for i := range s.large {
		s.large[i] = make(chan struct{}, 1)
	}
	s.puts = gatherer[*upload]{most: together, run: s.putAll}
	s.deletes = gatherer[string]{most: together, run: s.deleteAll}
	s.stats = gatherer[*lookup]{most: together, run: s.statAll}
	s.lists = gatherer[*listing]{most: together, run: s.listAll}
	s.reads = gatherer[*smallRead]{most: together, bound: readMost, weight: func(r *smallRead) int64 { return r.most }, run: s.readAll}
	return s, nil
}

// at returns the path of a key below the module.
func (s *Store) at(key string) string {
	if s.o.Prefix == "" {
		return key
	}
	return s.o.Prefix + "/" + key
}

func check(ctx context.Context, key string) error {
	if err := storage.ValidKey(key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// Defaults of Options.
const (
	attempts = 5
	backoff  = 500 * time.Millisecond
)

// again tries until it succeeds, or fails in a way that is no use trying again. Of an
// attempt together with others that fails, the next one is alone.
func (s *Store) again(ctx context.Context, try func(alone bool) error) error {
	most, wait := attempts, backoff
	if s.o.Attempts > 0 {
		most = s.o.Attempts
	}
	if s.o.Backoff > 0 {
		wait = s.o.Backoff
	}
	alone := false
	for n := 1; ; {
		noSync, noPartial := s.noSync.Load(), s.noPartial.Load()
		err := try(alone)
		switch {
		case errors.Is(err, errTogether):
			alone = true
			continue
		case errors.Is(err, errStale):
			continue
		case !noSync && s.doWithout(&s.noSync, err, "--fsync"), !noPartial && s.doWithout(&s.noPartial, err, "--partial"):
			continue
		case err == nil, n >= most, !passing(err), ctx.Err() != nil:
			return err
		}
		n++
		pause := wait/2 + rand.N(wait)
		wait *= 2
		var f *failed
		if errors.As(err, &f) {
			s.o.Notify(fmt.Sprintf("the rsync server does not answer as it should (%s), trying again in %s", f.reason(), pause.Round(100*time.Millisecond)))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// withouts say what follows where a server does not take an option.
var withouts = map[string]string{
	"--fsync":   "the rsync server does not take --fsync: what is written is durable when its system writes it out",
	"--partial": "the rsync server does not take --partial-dir: a layer whose transfer breaks off begins anew",
}

// doWithout remembers, where err says so, that the server does not take an option that
// can be done without.
func (s *Store) doWithout(known *atomic.Bool, err error, option string) bool {
	if !refused(err, option) {
		return false
	}
	if !known.Swap(true) {
		s.o.log().Warn(withouts[option], "remote", s.o.url())
	}
	return true
}

// one waits for the turn of a layer.
func (s *Store) one(ctx context.Context, w way) (done func(), err error) {
	select {
	case s.large[w] <- struct{}{}:
		return func() { <-s.large[w] }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Get implements storage.Store. rsync knows no ranges: what is not all of an object is
// errors.ErrUnsupported. The object is in the spool before this returns, and takes room
// there until the reader is closed.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := check(ctx, key); err != nil {
		return nil, err
	}
	if offset != 0 || length >= 0 {
		return nil, fmt.Errorf("%s: bytes from %d on, of %d: %w", key, offset, length, errors.ErrUnsupported)
	}
	dir, remove, err := s.spool.take()
	if err != nil {
		return nil, err
	}
	file, err := s.fetch(ctx, dir, key)
	if err != nil {
		remove()
		return nil, s.failure(ctx, err, "read", key)
	}
	return &reader{ctx: ctx, file: file, remove: remove}, nil
}

// fetch lets one object come to dir.
func (s *Store) fetch(ctx context.Context, dir, key string) (*os.File, error) {
	done, err := s.one(ctx, down)
	if err != nil {
		return nil, err
	}
	defer done()
	err = s.again(ctx, func(bool) error {
		// What came of it before the connection broke is what the next attempt builds on.
		var a announced
		err := s.run(ctx, run{
			way: down, local: dir, names: []string{s.at(key)}, line: a.line, most: a.most,
			options: []string{"--ignore-missing-args", "--ignore-times", "--partial", announce},
		})
		if err != nil && !onlyMissing(err) {
			return err
		}
		if !a.said.Load() { // it is gone: what came of it before is not all
			return s.spool.empty(dir)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	file, err := open(dir, s.at(key))
	if err == nil && file == nil {
		err = fmt.Errorf("%s: %w", s.name(key), storage.ErrNotFound)
	}
	return file, err
}

// reader is an object in the spool.
type reader struct {
	ctx    context.Context
	file   *os.File
	remove func()
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.file.Read(p)
}

func (r *reader) Close() error {
	err := r.file.Close()
	r.remove()
	return err
}

// smallRead is a question for the content of an object.
type smallRead struct {
	key  string
	most int64

	content []byte
	found   bool
	tooMuch bool
}

// ReadSmall implements storage.SmallReader. What is read at the same time comes in one run.
func (s *Store) ReadSmall(ctx context.Context, key string, most int64) ([]byte, error) {
	if err := check(ctx, key); err != nil {
		return nil, err
	}
	var r *smallRead
	err := s.again(ctx, func(alone bool) error {
		r = &smallRead{key: key, most: most}
		return s.reads.ask(ctx, r, alone)
	})
	switch {
	case err != nil:
		return nil, s.failure(ctx, err, "read", key)
	case r.tooMuch:
		return nil, fmt.Errorf("%s: %w: more than %d bytes", s.name(key), storage.ErrTooLarge, most)
	case !r.found:
		return nil, fmt.Errorf("%s: %w", s.name(key), storage.ErrNotFound)
	}
	return r.content, nil
}

// readAll answers questions for contents. Objects that are larger than all who ask want
// do not come; rsync says so.
func (s *Store) readAll(ctx context.Context, ask []*smallRead) error {
	dir, remove, err := s.spool.take()
	if err != nil {
		return err
	}
	defer remove()
	most := int64(0)
	names := make([]string, len(ask))
	for i, r := range ask {
		names[i] = s.at(r.key)
		most = max(most, r.most)
	}
	larger := map[string]bool{}
	err = s.run(ctx, run{
		way: down, local: dir, names: names,
		most:    func() int64 { return min(most, math.MaxInt64/together) * int64(len(ask)) },
		options: []string{"--ignore-missing-args", "--ignore-times", "--whole-file", "--max-size=" + strconv.FormatInt(most, 10) + "b", "--info=skip1"},
		line: func(line string) error {
			if name, ok := strings.CutSuffix(line, " is over max-size"); ok {
				larger[unescape(name)] = true
			}
			return nil
		},
	})
	if err != nil && !onlyMissing(err) {
		return err
	}
	for _, r := range ask {
		if r.tooMuch = larger[s.at(r.key)]; r.tooMuch {
			continue
		}
		file, err := open(dir, s.at(r.key))
		if err != nil {
			return err
		}
		if file == nil {
			continue
		}
		r.content, err = io.ReadAll(io.LimitReader(file, r.most+1))
		_ = file.Close()
		if err != nil {
			return spoolFailure(s.spool.place, err)
		}
		r.found, r.tooMuch = true, int64(len(r.content)) > r.most
	}
	return nil
}

// upload is an object that lies in a directory of the spool.
type upload struct {
	name string // below the module, and below the directory
	dir  string
}

// partialDir is where, beside the object that it is to be, the server keeps what has
// come of one whose transfer broke off. Its name begins with a dot: it is no key.
const partialDir = ".rsync-partial"

// Put implements storage.Store. What is put at the same time goes in one run; what is
// larger goes alone, and continues where an attempt before broke off.
func (s *Store) Put(ctx context.Context, key string, body io.Reader) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	dir, remove, err := s.spool.take()
	if err != nil {
		return err
	}
	defer remove()
	u := &upload{name: s.at(key), dir: dir}
	size, err := s.spool.write(ctx, filepath.Join(dir, filepath.FromSlash(u.name)), body)
	if err != nil {
		return fmt.Errorf("%s not written: %w", s.name(key), err)
	}
	put := s.putSmall
	if size > smallMost {
		put = s.putLarge
	}
	err = put(ctx, u)
	var f *failed
	if errors.As(err, &f) && f.inTheWay() && s.clear(ctx, key) {
		err = put(ctx, u)
	}
	return s.failure(ctx, err, "write", key)
}

func (s *Store) putSmall(ctx context.Context, u *upload) error {
	return s.again(ctx, func(alone bool) error {
		if err := storage.Allowed(ctx); err != nil {
			return fmt.Errorf("%s%s not written: %w", s.o.module(), u.name, err)
		}
		return s.puts.ask(ctx, u, alone)
	})
}

func (s *Store) putLarge(ctx context.Context, u *upload) error {
	done, err := s.one(ctx, up)
	if err != nil {
		return err
	}
	defer done()
	return s.again(ctx, func(bool) error {
		if err := storage.Allowed(ctx); err != nil {
			return fmt.Errorf("%s%s not written: %w", s.o.module(), u.name, err)
		}
		options := s.putOptions()
		if !s.noPartial.Load() {
			options = append(options, "--partial-dir="+partialDir)
		}
		// Without --whole-file: it builds on what is in partialDir.
		return s.run(ctx, run{way: up, local: u.dir, names: []string{u.name}, options: append(options, "--no-whole-file")})
	})
}

// putOptions are those of every upload. An object gets the server's time (no --times),
// also when it is written again as it was (--ignore-times).
func (s *Store) putOptions() []string {
	options := []string{"--ignore-times"}
	if !s.noSync.Load() {
		options = append(options, "--fsync")
	}
	return options
}

// putAll writes small objects. rsync writes each beside its name, and renames it.
func (s *Store) putAll(ctx context.Context, ask []*upload) error {
	dir, remove, err := s.spool.take()
	if err != nil {
		return err
	}
	defer remove()
	names := make([]string, len(ask))
	for i, u := range ask {
		names[i] = u.name
		if len(ask) == 1 {
			dir = u.dir
			break
		}
		if err := link(filepath.Join(u.dir, filepath.FromSlash(u.name)), filepath.Join(dir, filepath.FromSlash(u.name))); err != nil {
			return fmt.Errorf("%s: %w", u.name, err) // one key twice, or one below another: each alone
		}
	}
	return s.run(ctx, run{way: up, local: dir, names: names, options: append(s.putOptions(), "--whole-file")})
}

// Delete implements storage.Store. rsync is asked to delete just this name
// (--delete-missing-args), by a list in which nothing else is: a directory that is not
// empty stays. What is deleted at the same time goes in one run.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	err := s.again(ctx, func(alone bool) error {
		if err := storage.Allowed(ctx); err != nil {
			return fmt.Errorf("%s not deleted: %w", s.name(key), err)
		}
		return s.deletes.ask(ctx, s.at(key), alone)
	})
	return s.failure(ctx, err, "delete", key)
}

// deleteAll deletes what is under names, from a source that is empty: were there a
// directory in it, it could take the place of an object with its name.
func (s *Store) deleteAll(ctx context.Context, names []string) error {
	empty, remove, err := s.spool.take()
	if err != nil {
		return err
	}
	defer remove()
	err = s.run(ctx, run{way: up, local: empty, names: names, options: []string{"--delete-missing-args"}})
	var f *failed
	if errors.As(err, &f) && (f.code == codeVanished || f.code == codePartial && !f.says("failed")) { // directories above are not in the source, either
		return nil
	}
	return err
}

// lookup is a question for what is known of one object.
type lookup struct {
	key   string
	info  storage.Info
	found bool
}

// Stat implements storage.Store. What is asked at the same time goes in one run. Times are whole seconds.
func (s *Store) Stat(ctx context.Context, key string) (storage.Info, error) {
	if err := check(ctx, key); err != nil {
		return storage.Info{}, err
	}
	var l *lookup
	err := s.again(ctx, func(alone bool) error {
		l = &lookup{key: key}
		return s.stats.ask(ctx, l, alone)
	})
	if err == nil && !l.found {
		return storage.Info{}, fmt.Errorf("%s: %w", s.name(key), storage.ErrNotFound)
	}
	return l.info, s.failure(ctx, err, "look for", key)
}

func (s *Store) statAll(ctx context.Context, ask []*lookup) error {
	names := make([]string, len(ask))
	for i, l := range ask {
		names[i] = s.at(l.key)
	}
	found := map[string]storage.Info{}
	err := s.look(ctx, names, nil, func(e entry) {
		if !e.directory {
			found[e.info.Key] = e.info
		}
	})
	if err != nil {
		return err
	}
	for _, l := range ask {
		l.info, l.found = found[l.key]
	}
	return nil
}

// listing is a question for what is below a directory.
type listing struct {
	prefix string // empty, or ending with a slash
	infos  []storage.Info
}

// List implements storage.Store. All of it is there before the first is yielded, some
// 200 bytes a key. What is listed at the same time goes in one run.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		infos, err := s.list(ctx, prefix)
		if err == nil {
			err = ctx.Err()
		}
		for i := 0; i < len(infos) && err == nil; i++ {
			if !yield(infos[i], nil) {
				return
			}
			err = ctx.Err()
		}
		if err != nil {
			yield(storage.Info{}, s.failure(ctx, err, "list", strings.TrimSuffix(prefix, "/")))
		}
	}
}

func (s *Store) list(ctx context.Context, prefix string) ([]storage.Info, error) {
	slash := strings.LastIndexByte(prefix, '/') + 1
	directory, rest := prefix[:slash], prefix[slash:]
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if directory != "" && storage.ValidKey(directory[:slash-1]) != nil || rest != "" && storage.ValidKey(rest) != nil {
		return nil, nil // no key begins so
	}
	var l *listing
	err := s.again(ctx, func(alone bool) error {
		l = &listing{prefix: directory}
		if rest == "" {
			return s.lists.ask(ctx, l, alone)
		}
		return s.listPart(ctx, l, rest)
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(l.infos, func(a, b storage.Info) int { return strings.Compare(a.Key, b.Key) })
	return slices.CompactFunc(l.infos, func(a, b storage.Info) bool { return a.Key == b.Key }), nil
}

func (s *Store) listAll(ctx context.Context, ask []*listing) error {
	names := make([]string, len(ask))
	by := map[string][]*listing{}
	for i, l := range ask {
		names[i] = s.at(l.prefix)
		l.infos = nil
		by[l.prefix] = append(by[l.prefix], l)
	}
	return s.look(ctx, names, []string{"--recursive"}, func(e entry) {
		if e.directory {
			return
		}
		// A key is in the listing of each directory above it that is asked for.
		for end := 0; end >= 0; {
			for _, l := range by[e.info.Key[:end]] {
				l.infos = append(l.infos, e.info)
			}
			next := strings.IndexByte(e.info.Key[end:], '/')
			if next < 0 {
				return
			}
			end += next + 1
		}
	})
}

// listPart lists what begins with rest in a directory, and nothing beside it.
func (s *Store) listPart(ctx context.Context, l *listing, rest string) error {
	dir, remove, err := s.spool.take()
	if err != nil {
		return err
	}
	defer remove()
	above := "/" + quote(s.at(l.prefix))
	options := []string{"--recursive"}
	for _, rule := range [][2]string{{"include", above + quote(rest) + "*"}, {"exclude", above + "*"}} {
		file := filepath.Join(dir, rule[0])
		if err := os.WriteFile(file, []byte(rule[1]+"\x00"), 0o600); err != nil {
			return spoolFailure(s.spool.place, err)
		}
		options = append(options, "--"+rule[0]+"-from="+file)
	}
	l.infos = nil
	return s.look(ctx, []string{s.at(l.prefix)}, options, func(e entry) {
		if !e.directory && strings.HasPrefix(e.info.Key, l.prefix+rest) {
			l.infos = append(l.infos, e.info)
		}
	})
}

// quote writes a text as rsync's patterns have it.
func quote(text string) string {
	var b bytes.Buffer
	for i := range len(text) {
		if strings.IndexByte(`\*?[`, text[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(text[i])
	}
	return b.String()
}
