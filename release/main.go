// Command release makes what a release of dogestry consists of: for each system and
// architecture a static program in an archive, with its man pages and completions,
// and a bill of what the program is made of; then the checksums of it all. `make release`,
// `make man` and `make deb` run it. Equal sources and an equal Go give equal bytes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	dir := flags.String("o", "bin/release", "the `directory` to write, which is made anew")
	version := flags.String("version", "", "the version that the program tells")
	commit := flags.String("commit", "", "the commit that the program tells, in full")
	docs := flags.Bool("docs", false, "write the man pages and completions alone")
	sums := flags.Bool("sums", false, "write SHA256SUMS of what lies in the directory, and nothing else")
	only := flags.String("only", "", "one `os/arch`, instead of all")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *sums && *version == "" && flags.NArg() == 0 {
		return writeSums(*dir)
	}
	if *version == "" || flags.NArg() > 0 || strings.ContainsAny(*version, "/ \t\n") {
		return errors.New("usage: go run ./release [-o DIR] -version VERSION [-commit COMMIT] [-docs] [-only OS/ARCH], or [-o DIR] -sums, at the root of the sources")
	}
	at, err := commitTime(ctx)
	if err != nil {
		return err
	}
	if *docs {
		return writeDocuments(*dir, *version, at)
	}
	targets := platforms
	if *only != "" {
		system, arch, _ := strings.Cut(*only, "/")
		targets = []platform{{system, arch}}
	}
	if err := os.RemoveAll(*dir); err != nil {
		return err
	}
	r := release{dir: *dir, version: *version, commit: *commit, at: at}
	return r.make(ctx, targets)
}

// commitTime is the time that all files of a release bear: that of the commit, or what
// SOURCE_DATE_EPOCH says, as other build tools have it.
func commitTime(ctx context.Context) (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		out, err := exec.CommandContext(ctx, "git", "log", "-1", "--format=%ct").Output()
		if err != nil {
			return time.Time{}, fmt.Errorf("git tells no time of a commit: %w; set SOURCE_DATE_EPOCH", err)
		}
		text = strings.TrimSpace(string(out))
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no time in seconds since 1970", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// writeFile writes a file of a release, and the directories above it.
func writeFile(name string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, content, 0o644)
}
