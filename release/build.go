package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// platform is what a program runs on, as Go names it.
type platform struct{ os, arch string }

var platforms = []platform{
	{"linux", "amd64"},
	{"linux", "arm64"},
	{"darwin", "amd64"},
	{"darwin", "arm64"},
	{"windows", "amd64"},
	{"windows", "arm64"},
}

// program is the name of its program.
func (p platform) program() string {
	if p.os == "windows" {
		return "dogestry.exe"
	}
	return "dogestry"
}

// release is one that is being made in dir.
type release struct {
	dir, version, commit string
	at                   time.Time // all files bear it
}

// buildFlags are those of `make build`, which a test compares.
func buildFlags(version, commit string) []string {
	const variables = "-X github.com/dogestry/dogestry/internal/cli."
	return []string{"-trimpath", "-ldflags", "-s -w " + variables + "Version=" + version + " " + variables + "Commit=" + commit}
}

// make writes the archives and the bills.
func (r release) make(ctx context.Context, targets []platform) error {
	documents, err := r.documents()
	if err != nil {
		return err
	}
	for _, p := range targets {
		fmt.Fprintln(os.Stderr, "release:", p.os, p.arch)
		if err := r.pack(ctx, p, documents); err != nil {
			return fmt.Errorf("%s/%s: %w", p.os, p.arch, err)
		}
	}
	return nil
}

// documents is what lies beside the program in each archive.
func (r release) documents() ([]file, error) {
	var files []file
	for _, name := range []string{"LICENSE", "README.md"} {
		content, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		files = append(files, file{name, content, 0o644})
	}
	more, err := documents(r.version, r.at)
	return append(files, more...), err
}

// pack builds the program for one platform, and writes its archive and its bill.
func (r release) pack(ctx context.Context, p platform, documents []file) error {
	work, err := os.MkdirTemp("", "dogestry-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	binary := filepath.Join(work, p.program())
	// What Go notes of a clone it does not of an archive of the same sources.
	build := exec.CommandContext(ctx, "go", slices.Concat([]string{"build", "-buildvcs=false"}, buildFlags(r.version, r.commit), []string{"-o", binary, "./cmd/dogestry"})...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS="+p.os, "GOARCH="+p.arch, "GOAMD64=v1", "GOARM64=v8.0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return err
	}
	name := fmt.Sprintf("dogestry_%s_%s_%s", r.version, p.os, p.arch)
	bill, err := billOf(info, r.version, r.commit, r.at, content)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(r.dir, name+".cdx.json"), bill); err != nil {
		return err
	}
	files := slices.Concat([]file{{p.program(), content, 0o755}}, documents)
	write, suffix := writeTar, ".tar.gz"
	if p.os == "windows" {
		write, suffix = writeZip, ".zip"
	}
	var archive bytes.Buffer
	if err := write(&archive, name, files, r.at); err != nil {
		return err
	}
	return writeFile(filepath.Join(r.dir, name+suffix), archive.Bytes())
}

// writeSums writes SHA256SUMS of all that lies in dir, as sha256sum does.
func writeSums(dir string) error {
	const name = "SHA256SUMS"
	entries, err := os.ReadDir(dir) // by name
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, e := range entries {
		if e.Name() == name || !e.Type().IsRegular() {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		fmt.Fprintf(&sums, "%s  %s\n", hex.EncodeToString(sum[:]), e.Name())
	}
	return writeFile(filepath.Join(dir, name), []byte(sums.String()))
}
