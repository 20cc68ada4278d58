package main

import (
	"bytes"
	"io"
	"path/filepath"
	"time"

	"github.com/dogestry/dogestry/internal/cli"
)

// documents are the man pages and the completions, by the names that they have in archives.
func documents(version string, at time.Time) ([]file, error) {
	root := cli.Tree()
	var files []file
	for _, p := range pages(root, version, at) {
		files = append(files, file{"man/man1/" + p.name + ".1", []byte(p.source), 0o644})
	}
	for _, shell := range []struct {
		name  string // as the shell looks for it
		write func(io.Writer) error
	}{
		{"bash/dogestry", func(w io.Writer) error { return root.GenBashCompletionV2(w, true) }},
		{"zsh/_dogestry", root.GenZshCompletion},
		{"fish/dogestry.fish", func(w io.Writer) error { return root.GenFishCompletion(w, true) }},
		{"powershell/dogestry.ps1", root.GenPowerShellCompletionWithDesc},
	} {
		var script bytes.Buffer
		if err := shell.write(&script); err != nil {
			return nil, err
		}
		files = append(files, file{"completions/" + shell.name, script.Bytes(), 0o644})
	}
	return files, nil
}

// writeDocuments writes them below dir.
func writeDocuments(dir, version string, at time.Time) error {
	files, err := documents(version, at)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := writeFile(filepath.Join(dir, filepath.FromSlash(f.name)), f.content); err != nil {
			return err
		}
	}
	return nil
}
