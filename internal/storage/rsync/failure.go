package rsync

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/dogestry/dogestry/internal/fault"
	"github.com/dogestry/dogestry/internal/storage"
)

// failed is a run that has failed (rsync(1), "EXIT VALUES").
type failed struct {
	code int
	way  way
	said []string // on stderr, by both sides
}

// Codes of rsync.
const (
	codeSyntax      = 1
	codeUnsupported = 4
	codeStart       = 5 // the server does not let us begin
	codeSocket      = 10
	codeFile        = 11
	codeStream      = 12
	codePartial     = 23
	codeVanished    = 24
	codeTimeout     = 30
	codeConnect     = 35 // a time out, too
)

func (f *failed) Error() string { return fmt.Sprintf("rsync ended with %d: %s", f.code, f.reason()) }

// reason is the line that tells most.
func (f *failed) reason() string {
	for _, line := range f.said {
		if !noise.MatchString(line) {
			return fmt.Sprintf("%.300s", prefix.ReplaceAllString(line, ""))
		}
	}
	return fmt.Sprintf("exit code %d", f.code)
}

var (
	noise  = regexp.MustCompile(`^(default_perms_for_dir|rsync (error|warning): |WARNING: parent dir|file has vanished)`)
	prefix = regexp.MustCompile(`^(@ERROR: |ERROR: |rsync: )+(\[[A-Za-z]+\] )?`)
)

// says reports whether one of the lines has one of the texts in it.
func (f *failed) says(texts ...string) bool {
	return slices.ContainsFunc(f.said, func(line string) bool {
		return !noise.MatchString(line) && slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(line, t) })
	})
}

// inTheWay reports whether something is where an object, or a directory above it, is to be.
func (f *failed) inTheWay() bool {
	return f.says("could not make way", "cannot delete non-empty directory", "Not a directory", "Is a directory", "File exists", "Too many levels of symbolic links")
}

// notThere are reasons why a name cannot be looked up that mean that there is no such object.
var notThere = regexp.MustCompile(`^rsync: (\[\w+\] )?(link_stat|readlink_stat|change_dir|opendir) .* failed: (No such file or directory|Not a directory|File name too long|Too many levels of symbolic links)`)

// hungUp is what rsync says when the other side has ended because of what it said before.
var hungUp = regexp.MustCompile(`^rsync: (\[\w+\] )?read error: `)

// onlyMissing reports whether nothing is wrong but that some names are of no object.
func onlyMissing(err error) bool {
	var f *failed
	if !errors.As(err, &f) {
		return false
	}
	if f.code == codeVanished {
		return true
	}
	return f.code == codePartial && !slices.ContainsFunc(f.said, func(line string) bool {
		return !noise.MatchString(line) && !notThere.MatchString(line) && !hungUp.MatchString(line)
	})
}

// passing reports whether the same may succeed when it is tried again.
func passing(err error) bool {
	var f *failed
	if !errors.As(err, &f) {
		return false
	}
	switch f.code {
	case codeSocket:
		return !f.says("getaddrinfo", "Connection refused", "No route to host", "Network is unreachable")
	case codeStart:
		return f.says("max connections", "didn't get server startup line", "did not see server greeting") // the others, where it hangs up
	case codeStream, codeTimeout, codeConnect:
		return !f.says("No space left", "Disk quota")
	case codePartial: // the object that it was to build on was replaced
		return f.says("failed verification")
	}
	return false
}

// refused reports whether the server does not take an option, as some are set up.
func refused(err error, option string) bool {
	var f *failed
	return errors.As(err, &f) && (f.code == codeUnsupported || f.code == codeSyntax) &&
		f.says("refuse "+option, option+": unknown option")
}

// failure says in the user's words why an operation failed. The kinds of package
// storage stay recognisable.
func (s *Store) failure(ctx context.Context, err error, what, key string) error {
	var f *failed
	name := s.o.url()
	if key != "" {
		name = s.name(key)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", name, ctx.Err())
	case !errors.As(err, &f):
		return err
	}
	what = "cannot " + what + " " + name
	if f.code == codeStart || f.code == codeSyntax || f.code == codeUnsupported {
		return s.unwelcome(what, f)
	}
	return s.broken(what, name, f)
}

// unwelcome tells why the server does not begin.
func (s *Store) unwelcome(what string, f *failed) error {
	denied := func(why, advice string, args ...any) error {
		return fault.Wrap(fault.Refused, storage.ErrPermission, "%s: %s", what, why).Advise(advice, args...)
	}
	switch {
	case f.says("password file"):
		return fault.New(fault.Usage, "%s: %s", what, f.reason()).
			Advise("The file that password-file names must be there, and readable for you alone: chmod 600.")
	case f.says("auth failed"):
		if s.o.User == "" {
			return denied("the module wants a user and a password", "Write the user in the URL (rsync://user@host/module), and set RSYNC_PASSWORD, or add ?password-file=PATH.")
		}
		return denied("the server does not let "+s.o.User+" in", "Check RSYNC_PASSWORD, or the file that ?password-file= names, and the user's name: the server does not say which is wrong.")
	case f.says("Unknown module"):
		return fault.New(fault.NotFound, "%s: the server has no module %s", what, s.o.Module).
			Advise("`rsync rsync://%s/` lists those that it shows. The name in brackets in its rsyncd.conf is meant, and no path.", s.o.Host)
	case f.says("read only"):
		return denied("the module "+s.o.Module+" is read only", "It is good for list, inspect and pull. To push, its rsyncd.conf needs `read only = no`.")
	case f.says("write only"):
		return denied("the module "+s.o.Module+" is write only", "A push reads what is there already: its rsyncd.conf needs `write only = no`.")
	case f.says("access denied"):
		return denied("the server does not serve this host", "Its rsyncd.conf says so (hosts allow, hosts deny).")
	case f.says("max connections"):
		return fault.New(fault.Other, "%s: the server has as many connections as it takes", what).
			Advise("Run the same command again later, or let it take more (max connections): dogestry opens %d at most.", cap(s.runs))
	case f.says("chdir failed", "chroot failed"):
		return fault.New(fault.NotFound, "%s: the directory of the module %s is missing on the server", what, s.o.Module).
			Advise("Make the directory that its rsyncd.conf names as path, or mount it.")
	case f.says("refuse --delete"):
		return denied("the server refuses to delete", "Its rsyncd.conf has `refuse options` with delete: then tags and layers cannot be removed there.")
	case f.says("refuse "):
		return denied(f.reason(), "Its rsyncd.conf has `refuse options`. See docs/rsync.md for what is needed.")
	case f.says("didn't get server startup line", "did not see server greeting"):
		return fault.New(fault.Other, "%s: the server has hung up without a word", what).
			Advise("Run the same command again. Should it stay so, look whether it is an rsync server that answers there, and what its log says: %s", s.o.Host)
	case f.says("rather than greeting", "protocol version mismatch"):
		return fault.New(fault.Other, "%s: what answers there is no rsync server", what).
			Advise("Check the port: %s", s.o.Host)
	}
	return fault.New(fault.Other, "%s: %s", what, f.reason())
}

// broken tells what went wrong after the beginning.
func (s *Store) broken(what, name string, f *failed) error {
	again := "Run the same command again: what is stored stays, and a layer goes on where it broke off."
	writing := f.way == up
	switch {
	case f.says("No space left", "Disk quota") && !writing:
		return fault.Wrap(fault.Other, storage.ErrNoSpace, "%s to %s", what, s.spool.place).Advise("%s", spoolAdvice)
	case f.says("No space left", "Disk quota"):
		return fmt.Errorf("%s: %w", name, storage.ErrNoSpace)
	case f.says("Permission denied", "Operation not permitted", "Read-only file system"):
		return fault.Wrap(fault.Refused, storage.ErrPermission, "%s: %s", what, f.reason()).
			Advise("The user as whom the rsync server runs there (uid in its rsyncd.conf) needs the right to do so.")
	case writing && f.inTheWay():
		return fmt.Errorf("%s: %w", name, storage.ErrConflict)
	case f.says("getaddrinfo"):
		return fault.New(fault.Other, "%s: there is no host %s", what, s.o.Host).Advise("Check its name.")
	case f.says("Connection refused", "No route to host", "Network is unreachable"):
		return fault.New(fault.Other, "%s: nobody answers (%s)", what, f.reason()).
			Advise("Check host, port and network: %s. An rsync server listens on port 873 unless the URL says otherwise.", s.o.Host)
	case f.code == codeTimeout || f.code == codeConnect:
		return fault.New(fault.Other, "%s: the server has said nothing for too long", what).Advise("%s", again)
	case f.code == codeSocket || f.code == codeStream:
		return fault.New(fault.Other, "%s: the connection broke (%s)", what, f.reason()).Advise("%s", again)
	}
	return fault.New(fault.Other, "%s: %s", what, f.reason()).Advise("%s", again)
}
